//! Modules form layers: a module refers to nothing above it, neither in a `use` declaration nor by a path in its code, and inherent
//! methods of a type stand in the type's own layer.
//!
//! Here are the layers. Cargo sees to it that crates do not refer to each other in a cycle; the tests of this file see to it for the
//! modules directly below a crate's root. What a module's own submodules do to each other is not looked at.

mod rules;
mod source;
mod tokens;

use rules::Crate;

/// Each crate's modules, from the bottom to the top. Modules of one line do not refer to each other. `lib` is what the root
/// module itself defines.
const CRATES: &[Crate] = &[
    Crate {
        folder: "src",
        root: "lib.rs",
        layers: &[
            &["limits"],
            &["logging", "config"],
            &["state"],
            &["session"],
            &["lobby"],
            &["frontends", "maintenance"],
            &["process"],
            &["server"],
        ],
    },
    Crate {
        folder: "loadtest/src",
        root: "main.rs",
        layers: &[
            &["open_files", "output", "random", "run_state", "schedule"],
            &["interrupt", "latency", "machine", "progress"],
            &["plan"],
            &["server"],
            &["options"],
            &["client_protocol"],
            &["workload"],
            &["engine"],
            &["clients", "chaos"],
            &["report", "multiprocess"],
            &["measure"],
            &["compare", "scaling"],
        ],
    },
    Crate {
        folder: "protocol/src",
        root: "lib.rs",
        layers: &[
            &["limits", "byte_queue"],
            &["codec", "text"],
            &["frame"],
            &["messages"],
            &["preamble"],
            &["session"],
            &["client"],
        ],
    },
    Crate {
        folder: "shmem/src",
        root: "lib.rs",
        layers: &[
            &["limits", "mutants"],
            &["sys"],
            &["table", "liveness", "hang_reports"],
            &["journal"],
            &["lock"],
            &["transaction"],
            &["byte_ring", "event_log"],
            &["doorbell"],
            &["tests"],
        ],
    },
    Crate {
        folder: "text/src",
        root: "lib.rs",
        layers: &[
            &["limits", "escape", "telnet"],
            &["commands"],
            &["render"],
            &["input"],
        ],
    },
];

/// Violations that still have to go: the file, and the module that it must not refer to or the `impl` block that belongs elsewhere.
/// An entry that is no longer needed fails the test, so the list only shrinks.
const PENDING: &[(&str, &str)] = &[];

#[test]
fn nothing_refers_to_a_layer_above_it() {
    let mut problems = Vec::new();
    let mut used = Vec::new();
    for layers in CRATES {
        for violation in layers.check(&layers.read_files()) {
            match PENDING
                .iter()
                .position(|(file, what)| violation.file == *file && violation.what == *what)
            {
                Some(entry) => used.push(entry),
                None => problems.push(violation.to_string()),
            }
        }
    }
    for (entry, pending) in PENDING.iter().enumerate() {
        if !used.contains(&entry) {
            problems.push(format!("no longer needed in PENDING: {pending:?}"));
        }
    }
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}
