//! Tests that share one node and take turns on it: the first starts it, and what a failed one leaves is not the next one's.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use libtest_mimic::{Arguments, Failed, Trial};
use tokio::runtime::Runtime;
use tokio::sync::Mutex;

use super::{Choice, LoneNode, own_mounts};
use crate::proxy::Weather;

/// The node, while there is one, and how to start it.
pub struct Turns {
    runtime: Arc<Runtime>,
    place: Arc<Mutex<Option<LoneNode>>>,
    choice: Choice,
}

impl Turns {
    /// For the tests of one binary; call it first thing in `main`.
    pub fn on(choice: Choice) -> Result<Self> {
        own_mounts()?;
        Ok(Self { runtime: Arc::new(Runtime::new()?), place: Arc::default(), choice })
    }

    /// One test. The API server is within reach when it begins.
    pub fn test<T>(&self, sentence: &str, test: T) -> Trial
    where
        T: AsyncFnOnce(&mut LoneNode) -> Result<()> + Send + 'static,
    {
        let (runtime, place, choice) = (Arc::clone(&self.runtime), Arc::clone(&self.place), self.choice.clone());
        Trial::test(sentence, move || {
            let run = async {
                let mut place = place.lock().await;
                if place.is_none() {
                    *place = Some(LoneNode::ready(choice).await?);
                }
                let node = place.as_mut().context("the node is there")?;
                node.proxy.set(Weather::Healthy);
                let result = test(node).await;
                if result.is_err() {
                    *place = None;
                }
                result
            };
            runtime.block_on(run).map_err(|error: anyhow::Error| Failed::from(format!("{error:#}")))
        })
    }

    /// Runs those that the command line asks for, one after another, and takes the node away.
    pub fn run(self, tests: Vec<Trial>) -> ExitCode {
        let mut arguments = Arguments::from_args();
        arguments.test_threads = Some(1);
        let conclusion = libtest_mimic::run(&arguments, tests);
        drop(self.runtime.block_on(self.place.lock()).take());
        conclusion.exit_code()
    }
}
