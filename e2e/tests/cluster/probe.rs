//! Sends probes from one pod to another while the cluster changes. Every 10 ms, one thread sends a UDP datagram and
//! another thread opens a new TCP connection.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use bobbin_e2e::cluster::pod::{FAMILIES, PORT, Pod, who_answers};
use bobbin_e2e::network::Namespace;

/// The time between two probes.
const PROBE_INTERVAL: Duration = Duration::from_millis(10);
/// How long a UDP probe waits for its answer before it counts as lost. The time is long, because the machine may be busy.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);

type Count = (usize, Vec<String>);

/// The probes that are running.
pub struct Probes {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<Count>>>,
}

impl Probes {
    /// Starts TCP and UDP probes from the first pod to the second, in both address families.
    pub fn start(from: &Pod, to: &Pod) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for family in FAMILIES {
            let address = SocketAddr::new(to.address(family)?, PORT);
            let name = to.name.clone();
            threads.push(probe(from.netns().clone(), stop.clone(), move || {
                let answer = who_answers(address)?;
                ensure!(answer == name, "the wrong pod answered: {answer}");
                Ok(())
            }));
            threads.push(probe(from.netns().clone(), stop.clone(), move || echo(address)));
        }
        Ok(Self { stop, threads })
    }

    /// Ends the probes. Fails if a probe was lost or if too few probes were sent.
    pub fn must_have_lost_nothing(self) -> Result<()> {
        self.stop.store(true, Ordering::Release);
        for thread in self.threads {
            let (sent, lost) = thread.join().map_err(|_| anyhow!("a probe panicked"))??;
            ensure!(
                lost.is_empty(),
                "{} of {sent} probes were lost: {:?}",
                lost.len(),
                lost.iter().take(3).collect::<Vec<_>>()
            );
            ensure!(sent >= 50, "only {sent} probes were sent, which is too few");
        }
        Ok(())
    }
}

fn probe(
    namespace: Namespace,
    stop: Arc<AtomicBool>,
    once: impl Fn() -> Result<()> + Send + 'static,
) -> JoinHandle<Result<Count>> {
    std::thread::spawn(move || {
        namespace.run(move || {
            let (mut sent, mut lost) = (0, Vec::new());
            while !stop.load(Ordering::Acquire) {
                let start = Instant::now();
                if let Err(error) = once() {
                    lost.push(format!("{error:#}"));
                }
                sent += 1;
                std::thread::sleep(PROBE_INTERVAL.saturating_sub(start.elapsed()));
            }
            (sent, lost)
        })
    })
}

fn echo(to: SocketAddr) -> Result<()> {
    let here: SocketAddr = if to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(here)?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(RESPONSE_TIMEOUT))?;
    socket.send(b"echo bobbin")?;
    let mut buffer = [0; 64];
    let count = socket.recv(&mut buffer).context("the UDP probe got no answer")?;
    ensure!(
        buffer[..count].starts_with(b"bobbin"),
        "the UDP probe got the wrong answer {:?}",
        String::from_utf8_lossy(&buffer[..count])
    );
    Ok(())
}
