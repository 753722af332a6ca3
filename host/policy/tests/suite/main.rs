//! The policy host against good and hostile guests.

mod aot;
mod ask;
mod frozen;
mod load;
mod slot;

use overlan_guests as guests;
