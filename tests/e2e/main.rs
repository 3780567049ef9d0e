//! What the server promises, one module per promise, tested on the real binary or on the lobby as handlers
//! run it.
//!
//! One program, since each would be linked with the whole server: `cargo test --test e2e chat::` runs one
//! module. Some tests need a program of their own: those that fork or single-step (a test harness has
//! threads), and those whose program is also the server, with games that fail.

#[path = "../common/mod.rs"]
mod common;
#[path = "../harness/mod.rs"]
mod harness;

mod audit_log;
mod banner;
mod behind_proxy;
mod bounded_log;
mod chat;
mod churn;
mod closes;
mod configuration;
mod console;
mod console_access;
mod console_details;
mod console_drain;
mod console_editing;
mod console_live_views;
mod documentation;
mod exactly_once;
mod fanout;
mod foreign_protocols;
mod guessing;
mod hidden_information;
mod ignoring;
mod incidents;
mod input_fragmentation;
mod invitations;
mod isolation_dial;
mod leave_delivery;
mod lifecycle;
mod listening;
mod lobby;
mod logging;
mod malformed_input;
mod matches;
mod play_client;
mod player_names;
mod protocol_detection;
mod protocol_versions;
mod rate_limits;
mod reserved_names;
mod room_view;
mod rooms;
mod sanctions;
mod session_edge_cases;
mod session_resume;
mod slow_clients;
mod sources;
mod stream_window;
mod telnet;
mod text_commands;
mod text_mode;
mod text_resume;
mod turn_clock;
mod turns;
mod upgrade;
