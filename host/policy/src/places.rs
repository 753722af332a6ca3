//! How many instances the engine with fuel has at one time. Its slots are counted, and one too many would be a fault of
//! the plugin's that it did not commit; so whoever wants one waits until another's has ended.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Places for instances, each for as long as its [`Place`] lives. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Places(Arc<Count>);

struct Count {
    free: Mutex<u32>,
    freed: Condvar,
}

impl Places {
    pub(crate) fn new(places: u32) -> Self {
        Self(Arc::new(Count { free: Mutex::new(places), freed: Condvar::new() }))
    }

    /// Waits for a place. Who holds one must not wait for another.
    pub(crate) fn take(&self) -> Place {
        let free = self.0.free.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = self.0.freed.wait_while(free, |free| *free == 0);
        *wait.unwrap_or_else(PoisonError::into_inner) -= 1;
        Place(self.clone())
    }
}

/// Given back when it is dropped, which must come after the instance's store.
pub(crate) struct Place(Places);

impl Drop for Place {
    fn drop(&mut self) {
        let Places(count) = &self.0;
        *count.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        count.freed.notify_one();
    }
}
