/** A request of /v1/answer as a command and as a program. */

/** For a POSIX shell. */
export function curlOf(base, body, needsKey) {
  const key = needsKey ? ` \\\n  -H "Authorization: Bearer $RAGENGINE_KEY"` : "";
  const text = JSON.stringify(body).replaceAll("'", "'\\''");
  return `curl ${shell(`${base}/v1/answer`)} -H 'Content-Type: application/json'${key} \\\n  -d '${text}'`;
}

/** For the package's client. */
export function pythonOf(base, { question, documents, ...settings }, needsKey) {
  const given = documents ? `documents=[\n${documents.map((document) => `        ${documentOf(document)},\n`).join("")}    ]` : null;
  const named = Object.entries(settings).map(([name, value]) => `${name}=${literal(value)}`);
  const args = [literal(question), given, ...named].filter((part) => part !== null).join(", ");
  return [
    ...(needsKey ? ["import os", ""] : []),
    ...(documents ? ["from ragengine import Document"] : []),
    "from ragengine_serve import Client",
    "",
    `with Client(${literal(base)}${needsKey ? ', api_key=os.environ["RAGENGINE_KEY"]' : ""}) as client:`,
    `    answer = client.answer(${args})`,
    "print(answer.text)",
  ].join("\n");
}

const documentOf = ({ title, text, id, score, metadata }) =>
  `Document(${literal(title)}, ${literal(text)}, id=${literal(id)}, score=${literal(score)}` +
  `${Object.keys(metadata).length ? `, metadata=${literal(metadata)}` : ""})`;

/** A JSON string or number is Python's, too. */
function literal(value) {
  return { true: "True", false: "False", null: "None" }[value] ?? JSON.stringify(value);
}

const shell = (text) => (/^[\w:/.-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);
