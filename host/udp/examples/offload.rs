//! What segmentation offload is worth on this machine: datagrams per second over the loopback interface,
//! the receiver draining between batches.
//!
//! ```text
//! cargo run --release -p overlan-udp --example offload
//! ```

use std::error::Error;
use std::io;
use std::time::{Duration, Instant};

use overlan_udp::{Options, RecvBatch, Socket};

const BATCH: usize = 48;
const TIME: Duration = Duration::from_secs(1);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let any = "127.0.0.1:0".parse()?;
    let a = Socket::bind(any, &Options::default())?;
    let b = Socket::bind(any, &Options::default())?;
    let mut batch = RecvBatch::new();
    for size in [200, 1_200] {
        for offload in [false, true] {
            a.set_segmentation_offload(offload);
            let datagrams = vec![0x5a; BATCH * size];
            let (mut sent, mut received) = (0, 0);
            let (mut sending, mut receiving) = (Duration::ZERO, Duration::ZERO);
            while sending + receiving < TIME {
                let start = Instant::now();
                sent += a.send(&datagrams, size, b.local())? / size;
                sending += start.elapsed();
                let start = Instant::now();
                loop {
                    match b.recv(&mut batch) {
                        Ok(count) => received += count,
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                        Err(error) => return Err(error.into()),
                    }
                }
                receiving += start.elapsed();
            }
            println!(
                "{size} bytes, offload {offload}: {:.0} ns to send one, {:.0} ns to receive one, {} lost",
                sending.as_nanos() as f64 / sent as f64,
                receiving.as_nanos() as f64 / received as f64,
                sent - received
            );
        }
    }
    Ok(())
}
