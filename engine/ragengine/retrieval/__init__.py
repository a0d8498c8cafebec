"""The non-parametric memory p(z|x): passages, their index, and the encoders that search it."""
