/**
 * One Transfer Engine: its memory, its batches of READs, and the segments of others. Transfers of one configuration in one
 * process share an engine: it has threads and connections of its own, and takes most of a second to end.
 *
 * @module
 */

import { quietenMooncake, withDefaults } from "../../../../ffi/environment.ts";
import { cstring } from "../../../../ffi/libc.ts";
import { native, withDeadline } from "../../../../ffi/native.ts";
import {
  encodeReads,
  INVALID_BATCH,
  loadTransferEngine,
  type ReadRequest,
  TRANSFER_ENGINE_STRUCTS,
  type TransferEngineLibrary,
  type TransferStatus,
  transferStatusName,
} from "../../../../ffi/transfer_engine.ts";
import type { Deadline } from "../../../deadline.ts";
import { BackendUnavailableError, CapacityError, NativeError } from "../../../errors.ts";
import { holdsRdmaDevice, rdmaPorts, transportUnavailable } from "../../transport.ts";

/** What an engine is made with; engines with equal ones are one. */
export interface EngineSetup {
  readonly localHostname: string;
  readonly protocol: "tcp" | "rdma";
  /** Names with commas; empty for all devices with an ACTIVE port. */
  readonly deviceName: string;
  readonly metadataServer: string;
  readonly libraryPath: string | undefined;
}

/** An engine that nobody uses is kept so long, in milliseconds: the next transfer may come soon. */
const LINGER_MS = 10_000;
/** What the engine calls memory that belongs to no accelerator. */
const LOCATION = "cpu:0";

const engines = new Map<
  string,
  { users: number; readonly engine: Promise<Engine>; timer?: ReturnType<typeof setTimeout> }
>();

/** The engine of a configuration, until `release`. */
export async function useEngine(setup: EngineSetup): Promise<{ engine: Engine; release(): void }> {
  const key = JSON.stringify(setup);
  let entry = engines.get(key);
  if (entry === undefined) engines.set(key, entry = { users: 0, engine: Engine.open(setup) });
  entry.users++;
  clearTimeout(entry.timer);
  const used = entry;
  try {
    const engine = await used.engine;
    let released = false;
    return {
      engine,
      release() {
        if (released) return;
        released = true;
        if (--used.users > 0) return;
        const end = (): void => {
          // what was given up may never end; an engine that is gone must not be asked about it
          if (engine.isBusy) return wait();
          engines.delete(key);
          engine.close().catch(() => {});
        };
        const wait = (): void => {
          used.timer = setTimeout(end, LINGER_MS);
          // a process may end before: then the engine ends with it
          (used.timer as { unref?: () => void }).unref?.();
        };
        wait();
      },
    };
  } catch (error) {
    engines.delete(key);
    throw error;
  }
}

/**
 * The engine picks transports by what the machine looks like unless it is told not to; RDMA is added afterwards. Slices of
 * 256 KiB were read fastest over software RoCE, in both runtimes: a tenth to a third faster than its own of 64 KiB, and
 * half as fast again as 1 MiB.
 */
const DEFAULTS = { MC_FORCE_TCP: "1", MC_SLICE_SIZE: String(2 ** 18) };

let lastOpening: Promise<unknown> = Promise.resolve();

/** See the module. */
export class Engine {
  readonly #library: TransferEngineLibrary;
  readonly #handle: bigint;
  /** The name others open this process's memory by. */
  readonly name: string;
  /** Batches that have been submitted and not freed. */
  #batches = 0;

  private constructor(library: TransferEngineLibrary, handle: bigint, name: string) {
    this.#library = library;
    this.#handle = handle;
    this.name = name;
  }

  /** Makes an engine with its transport. @throws BackendUnavailableError */
  static open(setup: EngineSetup): Promise<Engine> {
    // one at a time: they are told by the environment what to be
    const opening = lastOpening.then(() => withDefaults(DEFAULTS, () => Engine.#open(setup)));
    lastOpening = opening.catch(() => {});
    return opening;
  }

  static async #open(setup: EngineSetup): Promise<Engine> {
    quietenMooncake();
    const library = loadTransferEngine(setup.libraryPath);
    const { symbols } = library;
    const text = new Texts();
    const host = text.address(setup.localHostname);
    const handle = await symbols.createTransferEngine(text.address(setup.metadataServer), host, host, 0n, 0);
    text.keep();
    if (handle === 0n) {
      throw new BackendUnavailableError(
        "TRANSPORT_UNAVAILABLE",
        `a Transfer Engine could not be made for ${setup.localHostname}`,
        { actual: setup.localHostname, hint: "set localHostname to an address of this host" },
      );
    }
    try {
      if (setup.protocol === "rdma") await installRdma(library, handle, setup.deviceName);
      const room = new Uint8Array(new ArrayBuffer(256));
      const code = symbols.getLocalIpAndPort(handle, room, BigInt(room.byteLength));
      if (code !== 0) throw failed("getLocalIpAndPort", code);
      return new Engine(library, handle, new TextDecoder().decode(room.subarray(0, room.indexOf(0))));
    } catch (error) {
      await symbols.destroyTransferEngine(handle);
      throw error;
    }
  }

  async register(address: bigint, bytes: number): Promise<void> {
    const location = new Texts();
    const code = await this.#library.symbols.registerLocalMemory(
      this.#handle,
      address,
      BigInt(bytes),
      location.address(LOCATION),
      1,
    );
    location.keep();
    if (code === 0) return;
    throw new CapacityError(`${bytes} bytes could not be registered with the Transfer Engine`, {
      actual: bytes,
      nativeName: "registerLocalMemory",
      nativeCode: code,
      hint: "raise the limit of locked memory (ulimit -l unlimited), or set a smaller globalSegmentSize",
    });
  }

  async unregister(address: bigint): Promise<void> {
    const code = await this.#library.symbols.unregisterLocalMemory(this.#handle, address);
    if (code !== 0) throw failed("unregisterLocalMemory", code);
  }

  /** Whether anything has been submitted that has not ended. */
  get isBusy(): boolean {
    return this.#batches > 0;
  }

  /**
   * The number of another engine's segment; it is asked anew what memory it has. Undefined where nobody answers.
   *
   * @throws TimeoutError where nothing is said in time
   */
  async openSegment(name: string, deadline: Deadline): Promise<number | undefined> {
    const text = new Texts();
    const call = this.#library.symbols.openSegmentNoCache(this.#handle, text.address(name));
    call.finally(() => text.keep()).catch(() => {});
    const { signal, timeoutMs } = deadline.options;
    const id = await withDeadline(call, { what: `opening the segment ${name}`, timeoutMs, signal });
    return id < 0 ? undefined : id;
  }

  async closeSegment(id: number): Promise<void> {
    await this.#library.symbols.closeSegment(this.#handle, id);
  }

  /**
   * Starts a batch of READs. Where that fails some of them may be under way all the same, so the batch has to be waited for
   * and freed either way.
   */
  async submit(
    requests: readonly ReadRequest[],
  ): Promise<{ readonly batch: Batch; readonly failure?: BackendUnavailableError }> {
    const { allocateBatchID, submitTransfer } = this.#library.symbols;
    const id = allocateBatchID(this.#handle, BigInt(requests.length));
    if (id === INVALID_BATCH) throw new NativeError("allocateBatchID failed", { actual: requests.length });
    this.#batches++;
    const batch = { id, tasks: requests.length };
    const entries = encodeReads(requests);
    const code = await submitTransfer(this.#handle, id, native.addressOf(entries), BigInt(requests.length));
    entries.fill(0); // kept alive until here
    if (code === 0) return { batch };
    const failure = new BackendUnavailableError("PEER_LOST", "the READs could not be started", {
      nativeName: "submitTransfer",
      nativeCode: code,
      actual: requests.length,
    });
    return { batch, failure };
  }

  /** The state of one task. */
  status(batch: Batch, task: number, room: DataView<ArrayBuffer>): TransferStatus {
    const bytes = new Uint8Array(room.buffer);
    const code = this.#library.symbols.getTransferStatus(this.#handle, batch.id, BigInt(task), bytes);
    return code === 0 ? transferStatusName(room.getInt32(0, true)) : "INVALID";
  }

  /** Ends a batch whose tasks have all ended. */
  free(batch: Batch): void {
    this.#library.symbols.freeBatchID(this.#handle, batch.id);
    this.#batches--;
  }

  /** Ends the engine. Its memory must be unregistered, its batches ended. */
  async close(): Promise<void> {
    await this.#library.symbols.destroyTransferEngine(this.#handle);
  }
}

/** READs that are under way. */
export interface Batch {
  readonly id: bigint;
  readonly tasks: number;
}

/** Room for one status. */
export function statusRoom(): DataView<ArrayBuffer> {
  return new DataView(new ArrayBuffer(TRANSFER_ENGINE_STRUCTS.transfer_status.size));
}

async function installRdma(
  library: TransferEngineLibrary,
  handle: bigint,
  deviceName: string,
): Promise<void> {
  const named = deviceName.split(",").map((name) => name.trim()).filter((name) => name !== "");
  const devices = named.length > 0
    ? named
    : [...new Set(rdmaPorts().filter(({ state }) => state === "ACTIVE").map(({ device }) => device))];
  const text = new Texts();
  const args = new BigUint64Array(new ArrayBuffer(16));
  args[0] = text.address(JSON.stringify({ [LOCATION]: [devices, []] }));
  const transport = await library.symbols.installTransport(
    handle,
    text.address("rdma"),
    native.addressOf(args),
  );
  args.fill(0n);
  text.keep();
  if (transport === 0n || !holdsRdmaDevice()) {
    throw transportUnavailable(
      `the Transfer Engine could not use ${devices.join(", ")}`,
      "look at `ibv_devinfo`, `ulimit -l` and MC_GID_INDEX",
    );
  }
}

function failed(call: string, code: number): NativeError {
  return new NativeError(`${call} of the Transfer Engine failed`, { nativeName: call, nativeCode: code });
}

/** Texts for a blocking call: they stay where they are until `keep` has been called. */
class Texts {
  readonly #texts: Uint8Array[] = [];

  address(text: string): bigint {
    const bytes = cstring(text);
    this.#texts.push(bytes);
    return native.addressOf(bytes);
  }

  keep(): number {
    return this.#texts.length;
  }
}
