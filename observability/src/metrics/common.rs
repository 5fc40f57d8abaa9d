//! The metrics that every program has: its version, its process, and the age of its loops.

use std::sync::atomic::{AtomicU64, Ordering};

use procfs::process::Process;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use super::{Component, Definition, Label, Metrics};
use crate::Watchdog;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct VersionLabel {
    version: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct LoopLabel {
    r#loop: &'static str,
}

impl Component<'_> {
    /// Adds the version of the program.
    pub fn add_build_info(&mut self, version: &'static str) {
        let definition = Definition::new("build_info", "", "Always 1; the label shows the version of the program")
            .labels(&[Label::Described("version", "the version")]);
        self.add(&definition, Family::<VersionLabel, Gauge>::default()).get_or_create(&VersionLabel { version }).set(1);
    }

    /// Adds the time since each loop of the program last made progress.
    pub fn add_loop_ages(&mut self, watchdog: Watchdog) {
        let definition = Definition::new(
            "loop_age_seconds",
            "seconds",
            "Time since a loop of the program last made progress. The liveness probe fails if this time is too long",
        )
        .labels(&[Label::Described("loop", "the name of the loop")]);
        let ages = self.add(&definition, Family::<LoopLabel, Gauge<f64, AtomicU64>>::default());
        self.on_read(move || {
            ages.clear();
            for (name, age) in watchdog.ages() {
                ages.get_or_create(&LoopLabel { r#loop: name }).set(age.as_secs_f64());
            }
        });
    }
}

/// The metrics of this process whose values come from the kernel (`/proc`).
#[derive(Clone, Debug, Default)]
struct ProcessMetrics {
    cpu: Counter<f64, AtomicU64>,
    resident: Gauge,
    virtual_size: Gauge,
    open_fds: Gauge,
    max_fds: Gauge,
    start: Gauge<f64, AtomicU64>,
}

impl Metrics {
    /// Adds the metrics of the process, with the names that all client libraries of Prometheus use.
    pub fn add_process(&mut self) {
        let process = ProcessMetrics::default();
        let mut add = |name: &'static str, unit, help, gauge: &Gauge| {
            self.add(name.to_owned(), &Definition::new(name, unit, help), gauge.clone());
        };
        add("process_resident_memory_bytes", "bytes", "Resident memory of the process", &process.resident);
        add("process_virtual_memory_bytes", "bytes", "Virtual memory of the process", &process.virtual_size);
        add("process_open_fds", "file descriptors", "Open file descriptors of the process", &process.open_fds);
        add("process_max_fds", "file descriptors", "How many files the process may have open", &process.max_fds);
        let cpu = "process_cpu_seconds";
        let help = "Time that the process has used a CPU, in user mode and in the kernel";
        self.add(cpu.to_owned(), &Definition::new(cpu, "seconds", help), process.cpu.clone());
        let start = "process_start_time_seconds";
        let help = "When the process started, in seconds since 1970";
        self.add(start.to_owned(), &Definition::new(start, "seconds since 1970", help), process.start.clone());
        self.on_read(move || {
            // Without /proc, the numbers keep their last values.
            let _ = process.update();
        });
    }
}

impl ProcessMetrics {
    fn update(&self) -> procfs::ProcResult<()> {
        let process = Process::myself()?;
        let stat = process.stat()?;
        let ticks = procfs::ticks_per_second() as f64;
        let cpu = (stat.utime + stat.stime) as f64 / ticks;
        self.cpu.inner().store(cpu.to_bits(), Ordering::Relaxed);
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        self.resident.set(number(stat.rss * procfs::page_size()));
        self.virtual_size.set(number(stat.vsize));
        self.start.set(procfs::boot_time_secs()? as f64 + stat.starttime as f64 / ticks);
        self.open_fds.set(number(process.fd_count()? as u64));
        if let procfs::process::LimitValue::Value(limit) = process.limits()?.max_open_files.soft_limit {
            self.max_fds.set(number(limit));
        }
        Ok(())
    }
}
