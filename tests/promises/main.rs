//! What the server promises, one module per promise. All of it is tried on the real binary, or on the lobby as handlers run it.
//!
//! One program, since each would be linked with the whole server: `cargo test --test promises chat::` runs one module.
//! What must not be in here has a program of its own: who forks or is stepped through (a test harness has threads), and who is the
//! server, with games that fail.

#[path = "../actors/mod.rs"]
mod actors;
#[path = "../common/mod.rs"]
mod common;

mod any_split;
mod chat;
mod churn;
mod configuration;
mod console;
mod console_details;
mod console_drain;
mod console_editing;
mod console_following;
mod dial;
mod documentation;
mod first_byte;
mod hidden_hands;
mod hostile;
mod invitations;
mod late;
mod leaving;
mod lifecycle;
mod lobby;
mod logging;
mod look;
mod matches;
mod names;
mod play;
mod rates;
mod resume;
mod resume_claims;
mod rooms;
mod slow_clients;
mod text_commands;
mod text_mode;
mod turns;
mod upgrade;
