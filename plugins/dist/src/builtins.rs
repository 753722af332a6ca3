//! Written by plugins/build.

use crate::Builtin;

/// None yet.
pub const BUILTINS: &[Builtin] = &[];
