//! The hostile guests against every kind: through the policy host, and through a running node.

mod files;
mod matrix;
mod node;
mod report;
mod swaps;
