// Talks to a server with OpenAI's npm client, and prints what came back as one JSON object.
//
//   node talk.mjs BASE_URL LETTERS
//
// LETTERS is a JSON object: what a message ends with to be answered by a text, a call, …; see
// test_openai_npm.py.
import OpenAI from "openai";

const [baseURL, letters] = process.argv.slice(2);
const ask = JSON.parse(letters);
const client = new OpenAI({ baseURL, apiKey: "none", maxRetries: 0 });
const model = "gpt-oss";
const schema = {
  type: "object",
  properties: { city: { type: "string" } },
  required: ["city"],
  additionalProperties: false,
};
const weather = { name: "weather", description: "Tells the weather.", parameters: schema };
const chatTools = [{ type: "function", function: weather }];
const tools = [{ type: "function", strict: true, ...weather }];
const user = (content) => [{ role: "user", content }];

const scenarios = {
  async chat() {
    const made = await client.chat.completions.create({ model, messages: user(ask.think) });
    return made.choices[0];
  },

  async chatStream() {
    const stream = client.chat.completions.stream({ model, messages: user(ask.think) });
    let deltas = 0;
    stream.on("content.delta", () => deltas++);
    const final = await stream.finalChatCompletion();
    return { deltas, choice: final.choices[0] };
  },

  async chatTools() {
    const stream = client.chat.completions.stream({
      model,
      messages: user(ask.call),
      tools: chatTools,
    });
    return (await stream.finalChatCompletion()).choices[0];
  },

  async chatObject() {
    const made = await client.chat.completions.parse({
      model,
      messages: user(ask.object),
      response_format: { type: "json_schema", json_schema: { name: "place", schema } },
    });
    return JSON.parse(made.choices[0].message.content);
  },

  async responses() {
    const made = await client.responses.create({ model, input: ask.think });
    const again = await client.responses.retrieve(made.id);
    const items = [];
    for await (const item of client.responses.inputItems.list(made.id)) items.push(item.type);
    await client.responses.delete(made.id);
    const gone = await failure(() => client.responses.retrieve(made.id));
    return { text: made.output_text, again: again.output_text, items, gone };
  },

  async responsesStream() {
    const stream = client.responses.stream({ model, input: ask.think });
    const events = [];
    for await (const event of stream) events.push(event.type);
    return { events, text: (await stream.finalResponse()).output_text };
  },

  async responsesTools() {
    const first = await client.responses.create({ model, tools, input: ask.call });
    const call = first.output.find((item) => item.type === "function_call");
    const second = await client.responses.create({
      model,
      tools,
      previous_response_id: first.id,
      input: [{ type: "function_call_output", call_id: call.call_id, output: ask.say }],
    });
    return { name: call.name, arguments: JSON.parse(call.arguments), text: second.output_text };
  },

  async responsesObject() {
    const made = await client.responses.parse({
      model,
      input: ask.object,
      text: { format: { type: "json_schema", name: "place", schema, strict: true } },
    });
    return made.output_parsed;
  },

  async errors() {
    return {
      model: await failure(() =>
        client.chat.completions.create({ model: "x", messages: user("x") }),
      ),
      field: await failure(() => client.responses.create({ model, input: "x", temperature: 9 })),
      previous: await failure(() =>
        client.responses.create({ model, input: "x", previous_response_id: "resp_x" }),
      ),
    };
  },

  async abort() {
    const stream = await client.responses.create({ model, input: ask.endless, stream: true });
    let deltas = 0;
    for await (const event of stream) {
      if (event.type !== "response.output_text.delta") continue;
      deltas++;
      if (deltas === 3) break; // aborts the request
    }
    return { deltas };
  },
};

async function failure(call) {
  try {
    await call();
    return null;
  } catch (error) {
    const { status, code, param } = error;
    return { class: error.constructor.name, status, code, param };
  }
}

const found = {};
for (const [name, scenario] of Object.entries(scenarios)) found[name] = await scenario();
console.log(JSON.stringify(found));
