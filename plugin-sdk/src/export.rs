//! The macro that makes a policy of a type.

/// Exports a type as the policy of this `cdylib`: `export!(assignment: MyPolicy)`, likewise for
/// `sizing` and `failover`.
///
/// For `wasm32` it emits the exports of the kind's world; for every other target only a check that
/// the type implements the trait, so that policies link into native binaries, many at a time.
///
/// ```
/// use overlan_plugin_sdk::{Config, ConfigError, Log, Sizing, export, sizing};
///
/// struct Smallest;
///
/// impl Sizing for Smallest {
///     fn configure(config: &Config) -> Result<Self, ConfigError> {
///         config.expect_empty().map(|()| Smallest)
///     }
///
///     fn decide(&mut self, _: &sizing::Question, _: &dyn Log) -> Result<sizing::Answer, String> {
///         Ok(sizing::Answer { datagram: 1_200, coalesce: 1_200, burst: 12_000 })
///     }
/// }
///
/// export!(sizing: Smallest);
/// ```
#[macro_export]
macro_rules! export {
    (assignment: $policy:ty) => {
        $crate::__export!($policy, Assignment, assignment);
    };
    (sizing: $policy:ty) => {
        $crate::__export!($policy, Sizing, sizing);
    };
    (failover: $policy:ty) => {
        $crate::__export!($policy, Failover, failover);
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __export {
    ($policy:ty, $trait:ident, $kind:ident) => {
        const _: () = {
            const fn implements<P: $crate::$trait>() {}
            implements::<$policy>()
        };

        #[cfg(target_arch = "wasm32")]
        const _: () = {
            use $crate::glue::$kind::{packed, wit};

            struct Exported;

            ::std::thread_local! {
                static POLICY: $crate::glue::Slot<$policy> = const { $crate::glue::Slot::new() };
            }

            impl wit::Guest for Exported {
                fn configure(config: ::std::vec::Vec<(String, String)>) -> Result<(), String> {
                    POLICY.with(|slot| slot.configure(config, <$policy as $crate::$trait>::configure))
                }

                fn decide(question: wit::Question) -> Result<wit::Answer, String> {
                    let question = $crate::glue::$kind::question(question)?;
                    decide(&question)
                }
            }

            impl packed::Guest for Exported {
                fn decide(question: ::std::vec::Vec<u8>) -> Result<wit::Answer, String> {
                    let question = $crate::glue::$kind::unpack(question)?;
                    decide(&question)
                }
            }

            fn decide(question: &$crate::$kind::Question) -> Result<wit::Answer, String> {
                let answer = POLICY.with(|slot| {
                    slot.decide(|policy, log| <$policy as $crate::$trait>::decide(policy, question, log))
                })?;
                Ok($crate::glue::$kind::answer(answer))
            }

    $crate::glue::$kind::export!(Exported with_types_in $crate::glue::$kind);
        };
    };
}
