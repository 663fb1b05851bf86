/**
 * A plane within one process, for tests of what lies over planes: a READ is a copy, one timer later.
 *
 * @module
 */

import { detach, native } from "../../../../ffi/native.ts";
import type { Deadline } from "../../../../src/deadline.ts";
import { BackendUnavailableError, CorruptionError } from "../../../../src/errors.ts";
import type {
  Accepted,
  Link,
  Offer,
  Plane,
  ReadPiece,
  Registration,
  Wire,
} from "../../../../src/store/peer/plane.ts";

/** What is registered, by key. */
const registered = new Map<number, { readonly address: bigint; readonly bytes: number }>();
let keys = 1;

/** See the module. */
export class StandInPlane implements Plane {
  readonly kind = "stand-in";
  readonly transport = { asked: "copy", effective: "copy" };
  /** Called before every READ, the guard's too. */
  beforeRead: ((pieces: readonly ReadPiece[]) => void | Promise<void>) | undefined;
  readonly open = { registrations: 0, links: 0, accepted: 0 };
  closed = false;

  register(address: bigint, bytes: number): Promise<Registration> {
    const key = keys++;
    registered.set(key, { address, bytes });
    this.open.registrations++;
    return Promise.resolve({
      address,
      bytes,
      remote: { key },
      close: () => {
        if (registered.delete(key)) this.open.registrations--;
        return Promise.resolve();
      },
    });
  }

  offer(): Promise<Offer> {
    return Promise.resolve({
      hello: { hello: 1 },
      open: (answer: Wire) => {
        if ((answer as { welcome?: number }).welcome !== 1) throw new CorruptionError("no answer");
        this.open.links++;
        return Promise.resolve(new StandInLink(this));
      },
      close: () => Promise.resolve(),
    });
  }

  accept(): Promise<Accepted> {
    this.open.accepted++;
    let open = true;
    return Promise.resolve({
      answer: { welcome: 1 },
      close: () => {
        if (open) this.open.accepted--;
        open = false;
        return Promise.resolve();
      },
    });
  }

  close(): Promise<void> {
    this.closed = true;
    return Promise.resolve();
  }
}

class StandInLink implements Link {
  readonly #plane: StandInPlane;
  alive = true;

  constructor(plane: StandInPlane) {
    this.#plane = plane;
  }

  async read(
    local: Registration,
    remote: Wire,
    pieces: readonly ReadPiece[],
    deadline: Deadline,
  ): Promise<void> {
    await this.#plane.beforeRead?.(pieces);
    await new Promise((resolve) => setTimeout(resolve));
    deadline.check();
    const memory = registered.get((remote as { key: number }).key);
    if (memory === undefined || !this.alive) {
      this.alive = false;
      throw new BackendUnavailableError("PEER_LOST", "the memory is no longer registered");
    }
    for (const { localOffset, remoteOffset, bytes } of pieces) {
      if (remoteOffset + bytes > memory.bytes || localOffset + bytes > local.bytes) {
        throw new CorruptionError("beyond the memory");
      }
      if (bytes === 0) continue;
      const [from, to] = [memory.address + BigInt(remoteOffset), local.address + BigInt(localOffset)]
        .map((address) => native.view(address, bytes));
      new Uint8Array(to!).set(new Uint8Array(from!));
      detach(from!);
      detach(to!);
    }
  }

  close(): Promise<void> {
    if (this.alive) this.#plane.open.links--;
    this.alive = false;
    return Promise.resolve();
  }
}
