//! The policy host against good and hostile guests.

mod ask;
mod load;
mod slot;

use overlan_guests as guests;
