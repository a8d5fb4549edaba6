//! Startup, readiness and liveness probes of a running container.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::Context;
use super::process::{Launch, exit_code};
use kube_sim::controllers::pods::environment::{Mounts, on_host};

/// What the probes say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Health {
    /// The startup probe has passed (or there is none).
    Started,
    /// The readiness probe changed its mind (or there is none: ready once started).
    Ready(bool),
    /// The startup or liveness probe has failed for good: restart the container.
    Kill(String),
}

/// Where and how to probe.
pub(super) struct Target {
    pub(super) context: Arc<Context>,
    pub(super) container: Container,
    pub(super) address: Ipv4Addr,
    pub(super) env: Vec<(String, String)>,
    pub(super) mounts: Mounts,
    pub(super) dir: std::path::PathBuf,
}

impl Target {
    /// Reports until the receiver goes away.
    pub(super) async fn watch(self, health: mpsc::Sender<Health>) {
        if let Some(probe) = &self.container.startup_probe {
            let mut count = Count::of(probe, false);
            tokio::time::sleep(seconds(probe.initial_delay_seconds, 0)).await;
            while !count.passed {
                let result = self.ask(probe).await;
                if let (Some(false), Err(why)) = (count.add(result.is_ok()), &result) {
                    health.send(Health::Kill(format!("startup probe failed: {why}"))).await.ok();
                    return;
                }
                if !count.passed {
                    tokio::time::sleep(period(probe)).await;
                }
            }
        }
        health.send(Health::Started).await.ok();
        tokio::join!(self.readiness(&health), self.liveness(&health));
    }

    async fn readiness(&self, health: &mpsc::Sender<Health>) {
        let Some(probe) = &self.container.readiness_probe else {
            health.send(Health::Ready(true)).await.ok();
            return;
        };
        tokio::time::sleep(seconds(probe.initial_delay_seconds, 0)).await;
        let mut count = Count::of(probe, false);
        let mut was_ready = false;
        loop {
            let result = self.ask(probe).await;
            if let Some(ready) = count.add(result.is_ok()) {
                was_ready |= ready;
                if health.send(Health::Ready(ready)).await.is_err() {
                    return;
                }
            }
            let first = Duration::from_millis(self.context.args.first_ready_poll_ms);
            tokio::time::sleep(if was_ready { period(probe) } else { period(probe).min(first) }).await;
        }
    }

    async fn liveness(&self, health: &mpsc::Sender<Health>) {
        let Some(probe) = &self.container.liveness_probe else { return };
        tokio::time::sleep(seconds(probe.initial_delay_seconds, 0)).await;
        let mut count = Count::of(probe, true);
        loop {
            let result = self.ask(probe).await;
            if let (Some(false), Err(why)) = (count.add(result.is_ok()), &result) {
                health.send(Health::Kill(format!("liveness probe failed: {why}"))).await.ok();
                return;
            }
            tokio::time::sleep(period(probe)).await;
        }
    }

    async fn ask(&self, probe: &Probe) -> Result<(), String> {
        let timeout = seconds(probe.timeout_seconds, 1);
        match tokio::time::timeout(timeout, self.ask_once(probe)).await {
            Ok(result) => result,
            Err(_) => Err(format!("no answer within {timeout:?}")),
        }
    }

    async fn ask_once(&self, probe: &Probe) -> Result<(), String> {
        let host = |host: &Option<String>| host.clone().unwrap_or_else(|| self.address.to_string());
        if let Some(http) = &probe.http_get {
            let path = http.path.as_deref().unwrap_or("/");
            let status = http_get(&host(&http.host), self.port(&http.port)?, path).await.map_err(|e| e.to_string())?;
            return if (200..400).contains(&status) { Ok(()) } else { Err(format!("HTTP status {status}")) };
        }
        if let Some(tcp) = &probe.tcp_socket {
            let connected = TcpStream::connect((host(&tcp.host).as_str(), self.port(&tcp.port)?)).await;
            return connected.map(drop).map_err(|error| error.to_string());
        }
        if let Some(command) = probe.exec.as_ref().and_then(|exec| exec.command.as_ref()) {
            let launch = Launch {
                argv: command.iter().map(|word| on_host(word, &self.mounts)).collect(),
                env: self.env.clone(),
                dir: self.dir.clone(),
                output: "/dev/null".into(),
            };
            let mut process = self.context.spawner.spawn(launch).await.map_err(|error| error.to_string())?;
            let status = process.wait().await.map_err(|error| error.to_string())?;
            return if status.success() { Ok(()) } else { Err(format!("exit code {}", exit_code(status))) };
        }
        Err("the rig's kubelet knows httpGet, tcpSocket and exec probes only".to_owned())
    }

    fn port(&self, port: &IntOrString) -> Result<u16, String> {
        let number = match port {
            IntOrString::Int(number) => Some(*number),
            IntOrString::String(name) => {
                let named = self.container.ports.iter().flatten().find(|port| port.name.as_ref() == Some(name));
                named.map(|port| port.container_port)
            }
        };
        number.and_then(|number| u16::try_from(number).ok()).ok_or_else(|| format!("no port {port:?}"))
    }
}

/// Status code of a GET. Written by hand: a probe needs one line of the answer and no connection pool.
async fn http_get(host: &str, port: u16, path: &str) -> std::io::Result<u16> {
    let mut stream = TcpStream::connect((host, port)).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let line = String::from_utf8_lossy(&answer);
    let code = line.split_whitespace().nth(1).and_then(|code| code.parse().ok());
    code.ok_or_else(|| std::io::Error::other("the answer is not HTTP"))
}

fn seconds(value: Option<i32>, default: u32) -> Duration {
    Duration::from_secs(value.map_or(default, |value| u32::try_from(value).unwrap_or(0)).into())
}

fn period(probe: &Probe) -> Duration {
    seconds(probe.period_seconds, 10).max(Duration::from_secs(1))
}

/// Counts successes and failures in a row against the thresholds.
#[derive(Debug)]
struct Count {
    passed: bool,
    row: i32,
    decided: bool,
    success_threshold: i32,
    failure_threshold: i32,
}

impl Count {
    fn of(probe: &Probe, passed: bool) -> Self {
        Self {
            passed,
            row: 0,
            decided: false,
            success_threshold: probe.success_threshold.unwrap_or(1).max(1),
            failure_threshold: probe.failure_threshold.unwrap_or(3).max(1),
        }
    }

    /// `Some` when the verdict is reached: the first time, and whenever it turns.
    fn add(&mut self, success: bool) -> Option<bool> {
        if success == self.passed && self.decided {
            self.row = 0;
            return None;
        }
        let threshold = if success { self.success_threshold } else { self.failure_threshold };
        self.row = if self.row.signum() == if success { 1 } else { -1 } { self.row } else { 0 };
        self.row += if success { 1 } else { -1 };
        if self.row.abs() < threshold {
            return None;
        }
        (self.passed, self.decided, self.row) = (success, true, 0);
        Some(success)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(success: i32, failure: i32, passed: bool) -> Count {
        let probe = Probe { success_threshold: Some(success), failure_threshold: Some(failure), ..Probe::default() };
        Count::of(&probe, passed)
    }

    #[test]
    fn a_verdict_turns_only_after_its_threshold_in_a_row() {
        let mut count = count(1, 3, false);
        assert_eq!(count.add(true), Some(true));
        assert_eq!([count.add(false), count.add(false), count.add(true)], [None, None, None]);
        assert_eq!([count.add(false), count.add(false), count.add(false)], [None, None, Some(false)]);
        assert_eq!(count.add(true), Some(true));
    }

    #[test]
    fn a_liveness_probe_fails_at_its_threshold_from_the_start() {
        let mut count = count(1, 2, true);
        assert_eq!([count.add(false), count.add(false)], [None, Some(false)]);
    }
}
