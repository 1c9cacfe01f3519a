// Judges inclusion proofs by Sigstore's own verifier: the part of @sigstore/verify that reads a log's checkpoints.
//
// In: a JSON list on standard input. Out: a JSON list of "" or what is wrong. The package verifies what Sigstore
// signs; this calls its two steps for logs, which know RFC 6962 and signed notes and nothing of what is logged.
import { createPublicKey } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'

const require = createRequire(import.meta.url)
const { verifyTLogInclusion } = require('@sigstore/verify/dist/tlog')
const ED25519 = Buffer.from('302a300506032b6570032100', 'hex') // what comes before the key in its DER

const bytes = text => Buffer.from(text, 'base64')

function judge ({ origin, keyId, key, checkpoint, index, entry, hashes }) {
  const log = {
    logID: bytes(keyId),
    publicKey: createPublicKey({ key: Buffer.concat([ED25519, bytes(key)]), format: 'der', type: 'spki' }),
    baseURL: origin
  }
  const proven = {
    canonicalizedBody: bytes(entry),
    inclusionProof: {
      logIndex: String(index),
      hashes: hashes.map(bytes),
      checkpoint: { envelope: checkpoint }
    }
  }
  try {
    verifyTLogInclusion(proven, [log])
    return ''
  } catch (error) {
    return String(error)
  }
}

console.log(JSON.stringify(JSON.parse(readFileSync(0, 'utf8')).map(judge)))
