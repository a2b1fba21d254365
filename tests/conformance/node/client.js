// A Node client without any .proto file: it asks the server's reflection what there is, then calls it.
// usage: node client.js HOST:PORT     with model `simple` of `tidegate conformance --write-models` on the server
"use strict";

const assert = require("node:assert");
const grpc = require("@grpc/grpc-js");
const { GrpcReflection } = require("grpc-js-reflection-client");

const SERVICE = "inference.GRPCInferenceService";

async function main(target) {
  const credentials = grpc.credentials.createInsecure();
  const reflection = new GrpcReflection(target, credentials);
  const services = await reflection.listServices();
  assert.ok(services.includes(SERVICE), `services: ${services}`);

  const descriptor = await reflection.getDescriptorBySymbol(SERVICE);
  const root = descriptor.getPackageObject({ keepCase: true, longs: Number });
  const client = new root.inference.GRPCInferenceService(target, credentials);
  const call = (method, request) =>
    new Promise((resolve, reject) =>
      client[method](request, (error, answer) => (error ? reject(error) : resolve(answer))),
    );

  assert.strictEqual((await call("ServerLive", {})).live, true);
  const metadata = await call("ModelMetadata", { name: "simple" });
  assert.deepStrictEqual(metadata.inputs.map((tensor) => tensor.name), ["INPUT0", "INPUT1"]);

  const numbers = Int32Array.from({ length: 16 }, (_, index) => index);
  const ones = new Int32Array(16).fill(1);
  const tensor = (name) => ({ name, datatype: "INT32", shape: [1, 16] });
  const request = {
    model_name: "simple",
    id: "node",
    inputs: [tensor("INPUT0"), tensor("INPUT1")],
    raw_input_contents: [Buffer.from(numbers.buffer), Buffer.from(ones.buffer)],
  };
  check(await call("ModelInfer", request));

  const refused = await call("ModelInfer", { ...request, model_name: "nobody" }).catch((error) => error);
  assert.strictEqual(refused.code, grpc.status.NOT_FOUND);

  const stream = client.ModelStreamInfer();
  const answered = new Promise((resolve, reject) => {
    stream.on("data", resolve);
    stream.on("error", reject);
  });
  stream.write(request);
  check((await answered).infer_response);
  stream.end();

  const config = (await call("ModelConfig", { name: "simple" })).config;
  assert.strictEqual(config.name, "simple");
  client.close();
  console.log(`node ${process.version}: ${services.length} services, metadata, inference, error, stream, configuration`);

  function check(answer) {
    assert.strictEqual(answer.id, "node");
    const sums = new Int32Array(new Uint8Array(answer.raw_output_contents[0]).buffer);
    assert.deepStrictEqual([...sums], [...numbers].map((number) => number + 1));
  }
}

main(process.argv[2]).catch((error) => {
  console.error(error);
  process.exit(1);
});
