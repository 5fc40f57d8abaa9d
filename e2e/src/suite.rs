//! Runs test suites. The tests of one binary run one after another and share a fixture.

use std::future::Future;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::FutureExt;
use futures::future::BoxFuture;
use libtest_mimic::{Arguments, Failed, Trial};
use tokio::runtime::Runtime;
use tokio::sync::Mutex;

/// The time limit of one test, if the suite does not set another limit.
const TEST_TIMEOUT: Duration = Duration::from_mins(15);
/// A test that takes at least this long is slow. The suite prints the durations of slow tests, for readers of CI's log.
const SLOW_TEST: Duration = Duration::from_secs(5);
/// If this environment variable is set, the fixture of a failed test stays until a user kills the test process.
const KEEP_FAILED: &str = "BOBBIN_KEEP_FAILED";

/// The state that the tests of a suite share. The suite drops the fixture after the last test, and after each failed
/// test.
pub trait Fixture: Send + 'static {
    /// Prepares the fixture before each test.
    fn before_test(&mut self) -> Result<()> {
        Ok(())
    }

    /// Cleans up after each test that passed. If the clean-up fails, the test fails.
    fn after_test(&mut self) -> impl Future<Output = Result<()>> {
        async { Ok(()) }
    }

    /// Describes the fixture's state for a person who debugs a failed test. The suite prints this description after the
    /// failure.
    fn describe(&self) -> String {
        String::new()
    }
}

/// The fixture of a suite without shared state: each test creates what it needs.
pub struct NoFixture;

impl Fixture for NoFixture {}

type Start<F> = Arc<dyn Fn() -> BoxFuture<'static, Result<F>> + Send + Sync>;

/// The tests of one binary. The first test that runs starts the fixture. After a failed test, the next test starts a
/// new fixture.
pub struct Suite<F> {
    runtime: Arc<Runtime>,
    fixture: Arc<Mutex<Option<F>>>,
    start: Start<F>,
    timeout: Duration,
}

impl Suite<NoFixture> {
    /// A suite whose tests share no state.
    pub fn without_fixture() -> Result<Self> {
        Suite::new(|| async { Ok(NoFixture) })
    }
}

impl<F: Fixture> Suite<F> {
    /// A suite whose tests share the fixture that `start` creates.
    pub fn new<S, R>(start: S) -> Result<Self>
    where
        S: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<F>> + Send + 'static,
    {
        let start: Start<F> = Arc::new(move || start().boxed());
        Ok(Self { runtime: Arc::new(Runtime::new()?), fixture: Arc::default(), start, timeout: TEST_TIMEOUT })
    }

    /// Sets the time limit of one test. The start of the fixture does not count.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Creates a test of this suite. The test's name is the sentence that the test proves.
    pub fn test<T>(&self, sentence: &str, test: T) -> Trial
    where
        T: AsyncFnOnce(&mut F) -> Result<()> + Send + 'static,
    {
        let (runtime, slot) = (Arc::clone(&self.runtime), Arc::clone(&self.fixture));
        let (start, timeout) = (Arc::clone(&self.start), self.timeout);
        Trial::test(sentence, move || {
            let begin = Instant::now();
            let outcome = runtime.block_on(async {
                let mut slot = slot.lock().await;
                // Take the fixture out of the suite, and put it back only if the test passes. So after a failure or a
                // panic, the next test starts a new fixture.
                let mut fixture = match slot.take() {
                    Some(fixture) => fixture,
                    None => start().await.context("the fixture of the suite did not start")?,
                };
                let result = run(&mut fixture, test, timeout).await;
                match &result {
                    Ok(()) => *slot = Some(fixture),
                    Err(error) => report(&fixture, error),
                }
                result
            });
            if begin.elapsed() >= SLOW_TEST {
                println!("the test took {} s", begin.elapsed().as_secs());
            }
            outcome.map_err(|error| Failed::from(cause_first(&error)))
        })
    }

    /// Runs the tests that the command line selects, one after another, and then drops the fixture.
    pub fn run(self, tests: Vec<Trial>) -> ExitCode {
        let mut arguments = Arguments::from_args();
        arguments.test_threads = Some(1);
        let conclusion = libtest_mimic::run(&arguments, tests);
        self.runtime.block_on(async { drop(self.fixture.lock().await.take()) });
        conclusion.exit_code()
    }
}

async fn run<F: Fixture>(
    fixture: &mut F,
    test: impl AsyncFnOnce(&mut F) -> Result<()>,
    timeout: Duration,
) -> Result<()> {
    fixture.before_test()?;
    tokio::time::timeout(timeout, test(fixture))
        .await
        .with_context(|| format!("the test did not end within {} s", timeout.as_secs()))??;
    tokio::time::timeout(timeout, fixture.after_test())
        .await
        .with_context(|| {
            format!("the test passed, but the clean-up after it did not end within {} s", timeout.as_secs())
        })?
        .context("the test passed, but the clean-up after it failed")
}

/// Formats an error with its cause first and its contexts after that. A summary of failures shows only the first lines,
/// so these lines must contain the cause.
fn cause_first(error: &anyhow::Error) -> String {
    let lines: Vec<String> = error.chain().map(ToString::to_string).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

fn report<F: Fixture>(fixture: &F, error: &anyhow::Error) {
    let description = fixture.describe();
    if !description.is_empty() {
        eprintln!("{description}");
    }
    if std::env::var_os(KEEP_FAILED).is_some() {
        eprintln!(
            "{error:#}\n{KEEP_FAILED} is set: process {} keeps the fixture until you kill the process",
            std::process::id()
        );
        loop {
            std::thread::park();
        }
    }
}
