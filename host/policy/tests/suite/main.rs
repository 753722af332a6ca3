//! The policy host against good and hostile guests.

mod aot;
mod ask;
mod guests;
mod load;
mod slot;
