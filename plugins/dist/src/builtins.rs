//! Written by plugins/build.

use overlan_contract::Kind;

use crate::Builtin;

/// Every shipped policy, by kind, then name.
pub const BUILTINS: &[Builtin] = &[
    Builtin {
        name: "balanced",
        kind: Kind::Assignment,
        wasm: include_bytes!("../balanced.wasm"),
        sha256: "329a56607b5e49791b02f29cf549d86600adbaf00d24c85c65187ccd40c71af0",
        summary: "Least loaded node first, moving as little as balance allows; standbys on other subnets",
    },
    Builtin {
        name: "bounded-load",
        kind: Kind::Assignment,
        wasm: include_bytes!("../bounded-load.wasm"),
        sha256: "74c2860adfbd3ec24654d2bf25618c9aa3699b21c28f0ae8c5bf213391df08c8",
        summary: "Consistent hashing with bounded loads: few moves, and nobody bears more than the average and a slack",
    },
    Builtin {
        name: "rendezvous",
        kind: Kind::Assignment,
        wasm: include_bytes!("../rendezvous.wasm"),
        sha256: "16ed815207ec813945e161f032b79523f1a700c2635c52c9573633f271f9b831",
        summary: "Weighted rendezvous hashing: duties by adapter speed and class; a lost node moves its own duties only",
    },
    Builtin {
        name: "spread",
        kind: Kind::Assignment,
        wasm: include_bytes!("../spread.wasm"),
        sha256: "172c3f73d05522319db0d39c6e4b5a52c48aa241c11da68a22ba2e1de93489d8",
        summary: "Owner and standbys over distinct sites, racks, routers and subnets",
    },
    Builtin {
        name: "sticky",
        kind: Kind::Assignment,
        wasm: include_bytes!("../sticky.wasm"),
        sha256: "8fbc883ca9e56b059697d1df10495da5b8a3e640b69e2cf3aaee8dd3ea88d3e9",
        summary: "Keeps the plan: moves what must, then a bounded share to even out, first onto nodes that stand by already",
    },
    Builtin {
        name: "weighted",
        kind: Kind::Assignment,
        wasm: include_bytes!("../weighted.wasm"),
        sha256: "8bff8841dc59f3fac4a62625d27b724d60dad4291dc18e713b55fe4fc16282a2",
        summary: "Rendezvous hashing by capacity, speed and class of service; capacity 0 drains a node",
    },
    Builtin {
        name: "conservative",
        kind: Kind::Sizing,
        wasm: include_bytes!("../conservative.wasm"),
        sha256: "2478912ddb187bfaeecf299b2b3aff3a15310ee3f84d8d590fb13cb2547c3f31",
        summary: "Datagrams of 1,200 bytes, which every path carries",
    },
    Builtin {
        name: "mtu-fit",
        kind: Kind::Sizing,
        wasm: include_bytes!("../mtu-fit.wasm"),
        sha256: "ec68304b6f4d8216efcc08cf74b83c330063bdd08b626c4199db05b080c18d5f",
        summary: "Datagrams as large as the adapters' and the path's MTU allow",
    },
    Builtin {
        name: "fast",
        kind: Kind::Failover,
        wasm: include_bytes!("../fast.wasm"),
        sha256: "6029ef0809db262b2ef03b9195e30b51ee24552761d733f7b43b7614955d78c2",
        summary: "Probes each 200 ms, reply timeout from the round-trip time, three misses, doubling hold-down",
    },
    Builtin {
        name: "knet-compat",
        kind: Kind::Failover,
        wasm: include_bytes!("../knet-compat.wasm"),
        sha256: "14721ebbc3eb6a09846889161de27f5ac028e6ea13997b67f6234ea0c0130b5d",
        summary: "The timing constants of kronosnet (libknet), for comparison and for migration",
    },
];
