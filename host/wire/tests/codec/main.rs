//! Properties of the codec: what is written is read back, whatever arrives is an answer and never a
//! panic, and what a newer member adds is passed over.

mod arbitrary;
mod frames;
mod headers;
mod records;
