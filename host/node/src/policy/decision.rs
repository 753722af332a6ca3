//! Between the core's questions and answers, which are of any kind, and plugins and slots, which are of one.

use std::time::Duration;

use overlan_core::policy::{Answer, Question};
use overlan_policy::{Assignment, Failover, Fault, NoAnswer, Plugin, Policy, Sizing, Slot};

/// A compiled plugin of some kind.
pub(super) enum AnyPlugin {
    Assignment(Plugin<Assignment>),
    Sizing(Plugin<Sizing>),
    Failover(Plugin<Failover>),
}

/// A kind whose questions and answers the core knows.
pub(super) trait Decision: Policy {
    /// Asks the active plugin; `None` for a question of another kind.
    fn ask(
        slot: &mut Slot<Self>,
        question: &Question,
        now: Duration,
    ) -> Option<Result<overlan_policy::Answered<Answer>, NoAnswer>>;
    /// Asks this plugin, for a test; one of another kind is passed over.
    fn test(plugin: &mut Plugin<Self>, question: &Question) -> Result<(), Fault>;
    fn wrap(plugin: Plugin<Self>) -> AnyPlugin;
    fn unwrap(plugin: AnyPlugin) -> Option<Plugin<Self>>;
}

macro_rules! decision {
    ($kind:ident) => {
        impl Decision for $kind {
            fn ask(
                slot: &mut Slot<Self>,
                question: &Question,
                now: Duration,
            ) -> Option<Result<overlan_policy::Answered<Answer>, NoAnswer>> {
                let Question::$kind(question) = question else { return None };
                Some(slot.ask(question, now).map(|answered| answered.map(Answer::$kind)))
            }

            fn test(plugin: &mut Plugin<Self>, question: &Question) -> Result<(), Fault> {
                let Question::$kind(question) = question else { return Ok(()) };
                plugin.ask(question).map(drop)
            }

            fn wrap(plugin: Plugin<Self>) -> AnyPlugin {
                AnyPlugin::$kind(plugin)
            }

            fn unwrap(plugin: AnyPlugin) -> Option<Plugin<Self>> {
                match plugin {
                    AnyPlugin::$kind(plugin) => Some(plugin),
                    _ => None,
                }
            }
        }
    };
}

decision!(Assignment);
decision!(Sizing);
decision!(Failover);
