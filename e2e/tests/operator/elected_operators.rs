//! Runs two operators with leader election. A test can freeze the leader in the middle of a write.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bobbin_e2e::api_proxy::{ApiProxy, Fault, ObservedRequest, Selector};
use bobbin_e2e::chart;
use bobbin_e2e::control_plane::Process;
use bobbin_e2e::invariants::{MachineSource, Watched, await_none};
use bobbin_e2e::ports::free_port;
use bobbin_e2e::wait::{Poll, check, wait_until};
use nix::sys::signal::Signal;
use xtask::artifacts::Artifacts;

use crate::fixture::{NAMESPACE, NODE_GRACE_PERIOD, OperatorFixture, RECONCILE_TIMEOUT, metrics_page};

/// How long an operator may take to replace a frozen leader. The Lease of the frozen leader must expire first.
const SUCCESSION_TIMEOUT: Duration = Duration::from_secs(30);
/// The interval at which the test checks whether the write has begun. The test must freeze the leader before the write
/// times out.
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// The API verbs of all writes.
const WRITES: &[&str] = &["create", "update", "patch", "delete"];

/// Two operators with leader election. Each has its own proxy, and both have the operator's token.
pub struct Operators {
    pub fixture: OperatorFixture,
    operators: [Operator; 2],
}

struct Operator {
    proxy: ApiProxy,
    process: Process,
    metrics_port: u16,
}

impl Watched for Operators {
    fn client(&self) -> kube::Client {
        self.fixture.client()
    }

    fn machines(&self, _: &[(String, String)]) -> Vec<MachineSource> {
        Vec::new()
    }
}

impl Operators {
    /// Starts a control plane and both operators.
    pub async fn start() -> Result<Self> {
        let fixture = OperatorFixture::without_operators().await?;
        let token = chart::token(&fixture.client(), NAMESPACE, "bobbin-operator", None).await?;
        let operators = [
            Operator::start(&fixture, &token, "operator-1").await?,
            Operator::start(&fixture, &token, "operator-2").await?,
        ];
        Ok(Self { fixture, operators })
    }

    /// Waits until exactly one operator leads, and returns the number of this operator.
    async fn leader(&self) -> Result<usize> {
        wait_until("exactly one of two operators leads", SUCCESSION_TIMEOUT, || async {
            let [first, second] = [self.operators[0].leads().await?, self.operators[1].leads().await?];
            Ok(if first == second {
                Poll::Pending(format!("both operators say that they lead: {first}"))
            } else {
                Poll::Ready(usize::from(second))
            })
        })
        .await
    }

    /// Freezes the leader in a write that `cause` triggers. Lets the first `skipped` writes pass and holds the next
    /// one. When the other operator leads and `meanwhile` has ended, lets the held write continue. Then wakes the
    /// former leader.
    ///
    /// Returns the late write, and then all writes that the former leader sent after it woke up. Each has the API
    /// server's answer.
    pub async fn late_write(
        &self,
        write: Selector,
        skipped: usize,
        cause: impl Future<Output = Result<()>>,
        meanwhile: impl Future<Output = Result<()>>,
    ) -> Result<Vec<ObservedRequest>> {
        let leader = self.leader().await?;
        let (frozen, other) = (&self.operators[leader], &self.operators[1 - leader]);
        let mark = frozen.proxy.mark();
        let guard = frozen.proxy.inject(write.clone().nth(skipped), Fault::HoldRequest);
        cause.await?;
        let start = Instant::now();
        while !guard.has_hit() {
            ensure!(
                start.elapsed() < RECONCILE_TIMEOUT,
                "the leader did not make more than {skipped} writes of {write:?}"
            );
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        frozen.process.signal(Signal::SIGSTOP)?;
        let held = wait_until("every write but the held one has an answer", RECONCILE_TIMEOUT, || async {
            let seen = frozen.proxy.observed(mark, &write);
            let open: Vec<usize> = (0..seen.len()).filter(|number| seen[*number].answer.is_none()).collect();
            Ok(match open[..] {
                [held] => Poll::Ready(held),
                _ => Poll::Pending(format!("the writes with the numbers {open:?} have no answer")),
            })
        })
        .await?;
        wait_until("the other operator leads", SUCCESSION_TIMEOUT, || async {
            Ok(check(other.leads().await?, || "the other operator does not lead yet".to_owned()))
        })
        .await?;
        meanwhile.await.context("the changes failed while the former leader was frozen")?;
        let woken = frozen.proxy.mark();
        drop(guard);
        let late = wait_until("the API server has answered the late write", RECONCILE_TIMEOUT, || async {
            let late = frozen.proxy.observed(mark, &write).swap_remove(held);
            Ok(if late.answer.is_some() { Poll::Ready(late) } else { Poll::Pending("no answer".to_owned()) })
        })
        .await?;
        frozen.process.signal(Signal::SIGCONT)?;
        wait_until("the former leader has woken up and no longer leads", RECONCILE_TIMEOUT, || async {
            let (leads, other_leads) = (frozen.leads().await?, other.leads().await?);
            Ok(check(!leads && other_leads, || {
                format!("the former leader leads: {leads}; the other operator leads: {other_leads}")
            }))
        })
        .await?;
        await_none(self, RECONCILE_TIMEOUT).await?;
        let mut writes =
            wait_until("the API server has answered the writes of the former leader", RECONCILE_TIMEOUT, || async {
                let of = |resource| frozen.proxy.observed(woken, &Selector::verbs(WRITES).of(resource));
                let seen: Vec<_> =
                    ["addresspools", "addressblocks", "ipassignments"].into_iter().flat_map(of).collect();
                let is_answered = seen.iter().all(|write| write.answer.is_some());
                Ok(if is_answered { Poll::Ready(seen) } else { Poll::Pending(format!("{seen:?}")) })
            })
            .await?;
        writes.insert(0, late);
        println!("{:?}", writes.iter().map(|write| (write.verb, &write.name, write.answer)).collect::<Vec<_>>());
        Ok(writes)
    }
}

impl Operator {
    async fn start(fixture: &OperatorFixture, token: &str, identity: &str) -> Result<Self> {
        let proxy = ApiProxy::start(&fixture.control_plane).await?;
        let kubeconfig = fixture.control_plane.kubeconfig_through(proxy.address(), token)?;
        let metrics_port = free_port()?;
        let flags = [
            "operator".to_owned(),
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--identity={identity}"),
            format!("--namespace={NAMESPACE}"),
            format!("--node-grace-period={}s", NODE_GRACE_PERIOD.as_secs()),
            format!("--metrics-address=127.0.0.1:{metrics_port}"),
            "--status-interval=100ms".to_owned(),
            "--lease-duration=5s".to_owned(),
            "--renew-deadline=4s".to_owned(),
            "--retry-period=300ms".to_owned(),
        ];
        let log = fixture.control_plane.directory().join(format!("{identity}.log"));
        let process = Process::start(Artifacts::find()?.all(), None, &log, flags)?;
        Ok(Self { proxy, process, metrics_port })
    }

    /// Whether the operator leads according to its metrics.
    async fn leads(&self) -> Result<bool> {
        let page = metrics_page(self.metrics_port).await?;
        Ok(page.lines().any(|line| line == "bobbin_operator_is_leader 1"))
    }
}
