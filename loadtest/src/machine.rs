//! The machine that the figures come from, and what processes and threads use.

pub(crate) mod process_tree;
pub(crate) mod sampler;
pub(crate) mod thread_usage;

use std::fs;

use serde::Serialize;

/// The facts about a machine that matter for the figures. What cannot be read is null.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Machine {
    pub cpu: Option<String>,
    /// Cores that this process may use.
    pub cores: usize,
    pub memory_mib: Option<u64>,
    pub kernel: Option<String>,
    /// The kernel's load average over the minute before the run: how many other tasks were runnable.
    pub load_average: Option<f64>,
}

impl Machine {
    /// This machine, now.
    pub(crate) fn this() -> Self {
        let read = |path| fs::read_to_string(path).ok();
        let cpu = read("/proc/cpuinfo").and_then(|text| value_of(&text, "model name"));
        let memory_kib: Option<u64> = read("/proc/meminfo")
            .and_then(|text| value_of(&text, "MemTotal"))
            .and_then(|value| value.trim_end_matches(" kB").parse().ok());
        let load = read("/proc/loadavg");
        Self {
            cpu,
            cores: cores(),
            memory_mib: memory_kib.map(|kib| kib / 1024),
            kernel: read("/proc/sys/kernel/osrelease").map(|text| format!("Linux {}", text.trim())),
            load_average: load.and_then(|text| text.split_whitespace().next()?.parse().ok()),
        }
    }
}

/// Cores that this process may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The value of the first line `key : value`.
fn value_of(text: &str, key: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == key).then(|| value.trim().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_cores_and_memory() {
        let machine = Machine::this();
        assert!(
            machine.cores > 0 && machine.memory_mib.is_some_and(|mib| mib > 16),
            "{machine:?}"
        );
        assert!(machine.kernel.is_some_and(|kernel| kernel.starts_with("Linux ")));
    }

    #[test]
    fn a_value_is_found_by_its_whole_key() {
        let text = "model\t\t: 85\nmodel name\t: Some CPU: fast\nMemTotal:   123 kB\n";
        assert_eq!(value_of(text, "model name").as_deref(), Some("Some CPU: fast"));
        assert_eq!(value_of(text, "MemTotal").as_deref(), Some("123 kB"));
        assert_eq!(value_of(text, "name"), None);
    }
}
