//! The three kinds of policy as types, so that no plugin can be asked another kind's question.

use bumpalo::Bump;
use std::fmt::Debug;
use std::time::Duration;

use overlan_contract::{Kind, Violation};

use crate::limits::Limits;
use crate::pack::pack;
use crate::usage::AnswerSize;
use crate::{bindings, convert};

/// A kind of policy: [`Assignment`], [`Sizing`] or [`Failover`], and no other.
pub trait Policy: sealed::Wasm {
    /// The kind at run time.
    const KIND: Kind;
}

/// What one question may use.
pub(crate) struct Budget {
    /// `None` where the kind is not metered.
    pub(crate) fuel: Option<u64>,
    /// Pairs of a node and a responsibility that fuel was given for.
    pub(crate) pairs: u64,
    pub(crate) deadline: Duration,
}

pub(crate) mod sealed {
    use super::{AnswerSize, Budget, Debug, Limits, Violation};
    use crate::guest::State;

    /// How a guest is asked: field by field, and in one piece where it takes that.
    #[derive(Clone)]
    pub struct Ways<A, B> {
        pub(crate) plain: A,
        pub(crate) packed: Option<B>,
    }

    /// What the host does differently for each kind.
    #[expect(private_interfaces, reason = "the trait is sealed; its methods are for this crate")]
    pub trait Wasm: Sized + Send + 'static {
        /// The question of the contract.
        type Question: Clone + Debug + serde::Serialize;
        /// The answer of the contract.
        type Answer: Clone + Debug + PartialEq;
        type Indices: Clone + Send + Sync;
        type Guest: Send;

        /// Whether it runs on the engine with fuel, each question in an instance of its own.
        const METERED: bool;

        fn budget(question: &Self::Question, limits: &Limits) -> Budget;
        fn indices(pre: &wasmtime::component::InstancePre<State>) -> wasmtime::Result<Self::Indices>;
        fn load(
            indices: &Self::Indices,
            store: &mut wasmtime::Store<State>,
            instance: &wasmtime::component::Instance,
        ) -> wasmtime::Result<Self::Guest>;
        fn configure(
            guest: &Self::Guest,
            store: &mut wasmtime::Store<State>,
            config: &[(String, String)],
        ) -> wasmtime::Result<Result<(), String>>;
        /// A question in one piece lies in `room`, and what was there before is overwritten.
        fn decide(
            guest: &Self::Guest,
            store: &mut wasmtime::Store<State>,
            question: &Self::Question,
            room: &mut Vec<u8>,
        ) -> wasmtime::Result<Result<Self::Answer, String>>;
        fn size(answer: &Self::Answer) -> AnswerSize;
        fn validate(question: &Self::Question, answer: &Self::Answer) -> Result<(), Vec<Violation>>;
    }
}

macro_rules! kind {
    ($(#[$doc:meta])* $name:ident, $module:ident, $packed:ident, $question:ident, $answer:ident, $metered:literal, $pack:expr, $budget:expr, $size:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub enum $name {}

        impl Policy for $name {
            const KIND: Kind = Kind::$name;
        }

        #[expect(private_interfaces, reason = "the trait is sealed; its methods are for this crate")]
        impl sealed::Wasm for $name {
            type Question = overlan_contract::$module::Question;
            type Answer = overlan_contract::$module::Answer;
            type Indices = sealed::Ways<bindings::$module::GuestIndices, bindings::$packed::GuestIndices>;
            type Guest = sealed::Ways<bindings::$module::Guest, bindings::$packed::Guest>;

            const METERED: bool = $metered;

            fn budget(question: &Self::Question, limits: &Limits) -> Budget {
                $budget(question, limits)
            }

            fn indices(
                pre: &wasmtime::component::InstancePre<crate::guest::State>,
            ) -> wasmtime::Result<Self::Indices> {
                Ok(sealed::Ways {
                    plain: bindings::$module::GuestIndices::new(pre)?,
                    packed: bindings::$packed::GuestIndices::new(pre).ok(),
                })
            }

            fn load(
                indices: &Self::Indices,
                store: &mut wasmtime::Store<crate::guest::State>,
                instance: &wasmtime::component::Instance,
            ) -> wasmtime::Result<Self::Guest> {
                let plain = indices.plain.load(&mut *store, instance)?;
                let packed = indices.packed.as_ref().map(|packed| packed.load(store, instance)).transpose()?;
                Ok(sealed::Ways { plain, packed })
            }

            fn configure(
                guest: &Self::Guest,
                store: &mut wasmtime::Store<crate::guest::State>,
                config: &[(String, String)],
            ) -> wasmtime::Result<Result<(), String>> {
                guest.plain.call_configure(store, convert::attributes(config, &Bump::new()))
            }

            fn decide(
                guest: &Self::Guest,
                store: &mut wasmtime::Store<crate::guest::State>,
                question: &Self::Question,
                room: &mut Vec<u8>,
            ) -> wasmtime::Result<Result<Self::Answer, String>> {
                let answer = match &guest.packed {
                    Some(packed) => packed.call_decide(store, $pack(question, room)?)?,
                    None => guest.plain.call_decide(store, convert::$question(question, &Bump::new()))?,
                };
                Ok(answer.map(convert::$answer))
            }

            fn size(answer: &Self::Answer) -> AnswerSize {
                $size(answer)
            }

            fn validate(question: &Self::Question, answer: &Self::Answer) -> Result<(), Vec<Violation>> {
                overlan_contract::$module::validate(question, answer)
            }
        }
    };
}

kind!(
    /// Who is responsible for what. Each question is answered in a fresh instance and limited by
    /// fuel, so that equal questions get equal answers on every member.
    Assignment, assignment, packed_assignment, assignment_question, assignment_answer, true, pack_assignment, assignment_budget, assignment_size
);
kind!(
    /// How large datagrams and bursts are on a path. The instance is kept between questions.
    Sizing, sizing, packed_sizing, sizing_question, sizing_answer, false, pack_timed, timed_budget, sizing_size
);
kind!(
    /// The order and timing of the paths to a peer. The instance is kept between questions.
    Failover, failover, packed_failover, failover_question, failover_answer, false, pack_timed, timed_budget, failover_size
);

fn pack_assignment<'a>(
    question: &overlan_contract::assignment::Question,
    room: &'a mut Vec<u8>,
) -> postcard::Result<&'a [u8]> {
    Ok(pack(question, room))
}

fn pack_timed<'a, Q: serde::Serialize>(question: &Q, room: &'a mut Vec<u8>) -> postcard::Result<&'a [u8]> {
    room.clear();
    *room = postcard::to_extend(question, core::mem::take(room))?;
    Ok(room)
}

fn assignment_budget(question: &overlan_contract::assignment::Question, limits: &Limits) -> Budget {
    let pairs = (question.nodes.len() as u64).saturating_mul(question.responsibilities.len() as u64);
    let fuel =
        limits.fuel_base.saturating_add(pairs.saturating_mul(limits.fuel_per_pair)).min(limits.fuel_max);
    Budget { fuel: Some(fuel), pairs, deadline: limits.assignment_deadline }
}

fn timed_budget<Q>(_question: &Q, limits: &Limits) -> Budget {
    Budget { fuel: None, pairs: 0, deadline: limits.deadline }
}

/// Address and length of a list.
const LIST_BYTES: usize = 8;

fn assignment_size(answer: &overlan_contract::assignment::Answer) -> AnswerSize {
    let (lists, owners) = (answer.owners.len(), answer.owners.iter().map(Vec::len).sum::<usize>());
    AnswerSize { items: lists + owners, bytes: LIST_BYTES * lists + size_of::<u32>() * owners }
}

/// It has no lists: three numbers.
fn sizing_size(_answer: &overlan_contract::sizing::Answer) -> AnswerSize {
    AnswerSize { items: 0, bytes: 0 }
}

fn failover_size(answer: &overlan_contract::failover::Answer) -> AnswerSize {
    use overlan_contract::failover::Mode;
    let weights = match &answer.mode {
        Mode::Spread(weights) => weights.len(),
        Mode::Passive | Mode::Active => 0,
    };
    let (order, timings) = (answer.order.len(), answer.timings.len());
    // A timing is four numbers.
    AnswerSize { items: order + timings + weights, bytes: size_of::<u32>() * (order + 4 * timings + weights) }
}
