//! Written by plugins/build.

use overlan_contract::Kind;

use crate::Builtin;

/// Every shipped policy, by kind, then name.
pub const BUILTINS: &[Builtin] = &[
    Builtin {
        name: "balanced",
        kind: Kind::Assignment,
        wasm: include_bytes!("../balanced.wasm"),
        sha256: "0e6f46f2dccddb7f0baa51afed870a8ebd91c6b42bd4379645ad2c3940c116c8",
        summary: "Least loaded node first, moving as little as balance allows; standbys on other subnets",
    },
    Builtin {
        name: "rendezvous",
        kind: Kind::Assignment,
        wasm: include_bytes!("../rendezvous.wasm"),
        sha256: "9f42c83769b94c22d7f1e5d700b388e9be967f9503402c7dd1899e03c5a08f92",
        summary: "Weighted rendezvous hashing: duties by adapter speed and class; a lost node moves its own duties only",
    },
    Builtin {
        name: "conservative",
        kind: Kind::Sizing,
        wasm: include_bytes!("../conservative.wasm"),
        sha256: "fbaf29c576cd3bc559ff52da10a864ead44b0aff86c6f73a035aa7c76d1b9cf9",
        summary: "Datagrams of 1,200 bytes, which every path carries",
    },
    Builtin {
        name: "mtu-fit",
        kind: Kind::Sizing,
        wasm: include_bytes!("../mtu-fit.wasm"),
        sha256: "1db40614e83a1b52a2033f983e0fcbae2cf4f8d4d8f2bc131cdebc4b78a8839e",
        summary: "Datagrams as large as the adapters' and the path's MTU allow",
    },
    Builtin {
        name: "fast",
        kind: Kind::Failover,
        wasm: include_bytes!("../fast.wasm"),
        sha256: "a8c8aba716e106290ee1f41a8b6d1c8bb4776f8c4ff9882e7da21f222f9b5c3b",
        summary: "Probes each 200 ms, reply timeout from the round-trip time, three misses, doubling hold-down",
    },
    Builtin {
        name: "knet-compat",
        kind: Kind::Failover,
        wasm: include_bytes!("../knet-compat.wasm"),
        sha256: "f0c46d0fb8a0bf7bf09095e90dba45bbe64da6e99555047d87ecbb1beec67bbf",
        summary: "The timing constants of kronosnet (libknet), for comparison and for migration",
    },
];
