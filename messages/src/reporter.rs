//! The names under which Bobbin's programs report events (`reportingController`).

/// A program that reports events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reporter(&'static str);

impl Reporter {
    /// The agent. The reporting instance is the name of its node.
    pub const AGENT: Self = Self("bobbin.dev/agent");
    /// The operator. The reporting instance is the name of its pod.
    pub const OPERATOR: Self = Self("bobbin.dev/operator");
    /// The check before `helm uninstall`. The reporting instance is the name of its Job.
    pub const UNINSTALL_CHECK: Self = Self("bobbin.dev/uninstall-check");

    /// The value of an event's `reportingController`.
    #[must_use]
    pub const fn controller(self) -> &'static str {
        self.0
    }
}

/// Each value of `reportingController` that an event of Bobbin may have. Release 0.2.0 and earlier releases used the
/// names without a domain.
pub const CONTROLLERS: [&str; 5] =
    [Reporter::AGENT.0, Reporter::OPERATOR.0, Reporter::UNINSTALL_CHECK.0, "bobbin-agent", "bobbin-operator"];
