//! What bad input gets: a word that says what to do, a counter, and no harm.

mod configuration;
mod datagrams;
mod files;
mod membership;
mod plugins;
mod privileges;
