//! Written by plugins/build.

use overlan_contract::Kind;

use crate::Builtin;

/// Every shipped policy, by kind, then name.
pub const BUILTINS: &[Builtin] = &[
    Builtin {
        name: "balanced",
        kind: Kind::Assignment,
        wasm: include_bytes!("../balanced.wasm"),
        sha256: "7308edfd227de6233153ddda03eeed2788a73906ba0bd3e31f6bf0582d5d8c7e",
        summary: "Least loaded node first, moving as little as balance allows; standbys on other subnets",
    },
    Builtin {
        name: "rendezvous",
        kind: Kind::Assignment,
        wasm: include_bytes!("../rendezvous.wasm"),
        sha256: "f6c95baa97443188f70357c128988723a3df886337ec5d4078613343e4d65f13",
        summary: "Weighted rendezvous hashing: duties by adapter speed and class; a lost node moves its own duties only",
    },
    Builtin {
        name: "conservative",
        kind: Kind::Sizing,
        wasm: include_bytes!("../conservative.wasm"),
        sha256: "689ed2ec504955cf22c5f1a1a74da9fcc9194468e17a0ea3c752ad740faaa9b0",
        summary: "Datagrams of 1,200 bytes, which every path carries",
    },
    Builtin {
        name: "mtu-fit",
        kind: Kind::Sizing,
        wasm: include_bytes!("../mtu-fit.wasm"),
        sha256: "41a0d04332f2f659c4381788f4385284d8e837a7d6099814418580dee5d6d8fd",
        summary: "Datagrams as large as the adapters' and the path's MTU allow",
    },
    Builtin {
        name: "fast",
        kind: Kind::Failover,
        wasm: include_bytes!("../fast.wasm"),
        sha256: "aec32c28dc2dd9430d05926dd4243a6d28c9f745c2f8abfbd87a011cfa35fee7",
        summary: "Probes each 200 ms, reply timeout from the round-trip time, three misses, doubling hold-down",
    },
    Builtin {
        name: "knet-compat",
        kind: Kind::Failover,
        wasm: include_bytes!("../knet-compat.wasm"),
        sha256: "1c63a7123f0a75977500d2bbd538f7df7e7389e36102679c0eec674102f7337d",
        summary: "The timing constants of kronosnet (libknet), for comparison and for migration",
    },
];
