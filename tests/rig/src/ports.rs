//! Free loopback ports for servers that cannot be told to choose one themselves.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Mutex, PoisonError};

use anyhow::bail;
use rand::RngExt as _;
use rand::rngs::StdRng;

/// Below the range the kernel takes client ports from, so that no connection can grab a port between our look and the
/// server's bind, nor while a server is stopped for a test.
const RANGE: std::ops::Range<u16> = 15_000..32_000;

/// A port nothing listens on and that this process has not handed out before.
///
/// # Errors
/// When no free port is found.
pub fn free_port() -> anyhow::Result<u16> {
    static TAKEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut random = rand::make_rng::<StdRng>();
    for _ in 0..1000 {
        let port = random.random_range(RANGE);
        if !taken.contains(&port) && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            taken.insert(port);
            return Ok(port);
        }
    }
    bail!("no free loopback port in {RANGE:?}")
}
