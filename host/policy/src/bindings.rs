//! The generated side of `wit/`. Nothing outside this crate sees these types: they are
//! converted once, at the edge, in [`crate::convert`].
//!
//! One world that has all three kinds shares the types of `facts` and `log` between them. It is
//! never instantiated as a whole: each kind loads only the interface that its plugins export.

wasmtime::component::bindgen!({
    path: "../../wit",
    inline: "
        package overlan:host;
        world kinds {
            include overlan:policy/assignment-policy@0.1.0;
            include overlan:policy/sizing-policy@0.1.0;
            include overlan:policy/failover-policy@0.1.0;
            export overlan:policy/packed-assignment@0.1.0;
            export overlan:policy/packed-sizing@0.1.0;
            export overlan:policy/packed-failover@0.1.0;
        }
    ",
    world: "overlan:host/kinds",
    // Questions are lowered from where they are.
    ownership: Borrowing { duplicate_if_necessary: true },
});

pub(crate) use exports::overlan::policy::{
    assignment, failover, packed_assignment, packed_failover, packed_sizing, sizing,
};
pub(crate) use overlan::policy::{facts, log};
