//! Checks the layers: a module refers to no module above it, neither in a `use` declaration nor by a path in its code,
//! and inherent methods of a type stand in the type's own layer.
//!
//! Cargo refuses cycles between crates. This test checks the modules directly below a crate's root; it does not check
//! the submodules of one module against each other. The crates `games` and `play` have no list: unit tests there refer
//! upwards.

mod rules;
mod source;
mod tokens;

use rules::Crate;

/// Each crate's modules, from the bottom to the top. Modules of one line do not refer to each other. `lib` is what the
/// root module itself defines.
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
            &["server", "test_kit"],
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
            &["limits", "mutants", "word"],
            &["sys"],
            &["table", "liveness", "hang_reports"],
            &["journal"],
            &["lock"],
            &["transaction"],
            &["byte_ring", "event_log"],
            &["doorbell"],
            &["misuse", "tests"],
        ],
    },
    Crate {
        folder: "text/src",
        root: "lib.rs",
        layers: &[
            &["limits", "escape", "code"],
            &["telnet", "columns", "keys", "opening"],
            &["line_editor"],
            &["commands"],
            &["render"],
            &["input"],
        ],
    },
];

#[test]
fn nothing_refers_to_a_layer_above_it() {
    let violations = CRATES
        .iter()
        .flat_map(|layers| layers.check(&layers.read_files()));
    let problems: Vec<String> = violations.map(|violation| violation.to_string()).collect();
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}
