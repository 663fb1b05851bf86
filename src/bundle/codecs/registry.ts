/**
 * The codecs by name.
 *
 * @module
 */

import type { Codec } from "./codec.ts";
import { mediaBytes, mediaListRagged } from "./media.ts";
import { msgpackRagged } from "./msgpack.ts";
import { raggedTensor, typedRagged } from "./ragged.ts";
import { recursiveCodec } from "./recursive.ts";
import { scalarsCodec } from "./scalars.ts";
import { raggedTensorDict } from "./tensor_dict.ts";
import { bytesRagged, jsonRagged, utf8Ragged } from "./varlen.ts";

const CODECS: ReadonlyMap<string, Codec> = new Map([
  ["utf8_ragged", utf8Ragged],
  ["bytes_ragged", bytesRagged],
  ["json_ragged", jsonRagged],
  ["ndarray", scalarsCodec],
  ["typed_ragged", typedRagged],
  ["ragged_tensor", raggedTensor],
  ["ragged_tensor_dict", raggedTensorDict],
  ["msgpack_ragged", msgpackRagged],
  ["media_bytes", mediaBytes],
  ["media_list_ragged", mediaListRagged],
  ["structured_recursive", recursiveCodec(codecNamed)],
]);

/** The codec of a name, or undefined for one this library does not know. */
export function codecNamed(name: string): Codec | undefined {
  return CODECS.get(name);
}
