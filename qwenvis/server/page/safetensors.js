/**
 * A reader of safetensors files.
 *
 * A file is the length of its header (8 bytes, little-endian), the header (JSON: the dtype, shape and place of each
 * tensor), and the data. Source of the format: https://github.com/huggingface/safetensors#format
 */

const ARRAYS = {
  F64: Float64Array,
  F32: Float32Array,
  F16: Uint16Array,
  BF16: Uint16Array,
  I64: BigInt64Array,
  U8: Uint8Array,
};
const NUMBERS = { F16: fromFloat16, BF16: fromBfloat16, I64: (integers) => Float64Array.from(integers, Number) };

/**
 * Return the metadata of a file, and its tensors by name: {dtype, shape, data}, data in an array of numbers.
 *
 * @param {ArrayBuffer} buffer the whole file
 * @throws {Error} if the buffer is no such file, or a tensor has another dtype than those above
 */
export function parse(buffer) {
  const length = Number(new DataView(buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  const { __metadata__: metadata = {}, ...entries } = header;
  const tensors = new Map();
  for (const [name, entry] of Object.entries(entries)) {
    tensors.set(name, { dtype: entry.dtype, shape: entry.shape, data: read(buffer, 8 + length, entry) });
  }
  return { metadata, tensors };
}

/** Return the numbers of a tensor: a view where its type allows, else a copy. */
function read(buffer, start, { dtype, data_offsets: [first, stop] }) {
  const Values = ARRAYS[dtype];
  if (!Values) throw new Error(`a tensor of ${dtype} cannot be read`);
  const size = Values.BYTES_PER_ELEMENT;
  const aligned = (start + first) % size === 0;
  const bytes = aligned ? buffer : buffer.slice(start + first, start + stop);
  const values = new Values(bytes, aligned ? start + first : 0, (stop - first) / size);
  return NUMBERS[dtype] ? NUMBERS[dtype](values) : values;
}

/** Return float32 of the bits of bfloat16, which are the upper half of those of float32. */
function fromBfloat16(bits) {
  return new Float32Array(Uint32Array.from(bits, (each) => each << 16).buffer);
}

/** Return float32 of the bits of IEEE 754 binary16: 1 of sign, 5 of exponent, 10 of fraction. */
function fromFloat16(bits) {
  return Float32Array.from(bits, (each) => {
    const sign = each & 0x8000 ? -1 : 1;
    const exponent = (each >> 10) & 31;
    const fraction = each & 1023;
    if (exponent === 31) return fraction ? NaN : sign * Infinity;
    return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024));
  });
}
