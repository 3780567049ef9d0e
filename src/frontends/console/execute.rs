//! Executes commands.

use std::sync::atomic::Ordering;

use crate::frontends::console::commands::{self, ConsoleCommand, Format, Query};
use crate::frontends::console::live_views::{LiveView, Ping, Top, Trace, Upgrade, Watch};
use crate::frontends::console::replies::{self, Reply};
use crate::frontends::console::{Console, Stage, actions, queries};
use crate::logging::{self, audit};

impl Console<'_> {
    pub(crate) fn execute_line(&mut self, line: &[u8]) {
        match commands::parse(line) {
            Ok(command) if self.needs_password() => match command {
                ConsoleCommand::Password(guess) => self.guess_password(&guess),
                ConsoleCommand::Quit => self.execute(command, line),
                _ => self.write_error("a password is needed: enter `password WORD`"),
            },
            Err(_) if self.needs_password() => {
                self.write_error("a password is needed: enter `password WORD`");
            }
            Ok(command) => self.execute(command, line),
            Err(error) => self.write_error(&error.to_string()),
        }
    }

    fn execute(&mut self, command: ConsoleCommand, line: &[u8]) {
        let is_act = command.is_act();
        let (context, lobby) = (self.context, &mut self.session.state);
        let done = match command {
            ConsoleCommand::Help(None) => return self.set_reply(Reply::lines(commands::overview())),
            ConsoleCommand::Help(Some(about)) => return self.set_reply(Reply::lines(about.explanation())),
            ConsoleCommand::Query(query, format) => return self.answer_query(query, format),
            ConsoleCommand::Ping(format) => {
                return self.start_view(LiveView::Ping(Ping::start(context, format)));
            }
            ConsoleCommand::Top { seconds, format } => {
                let top = Top::start(lobby, seconds, format);
                return self.start_view(LiveView::Top(top));
            }
            ConsoleCommand::Watch { room, hidden } => match Watch::begin(lobby, context, room, hidden) {
                Ok(watch) => return self.start_view(LiveView::Watch(watch)),
                Err(error) => Err(error.to_string()),
            },
            ConsoleCommand::Trace(player) => match Trace::begin(lobby, &player) {
                Ok(trace) => return self.start_view(LiveView::Trace(trace)),
                Err(error) => Err(error.to_string()),
            },
            // Has no effect where no password is needed, so that a script can send it in any case.
            ConsoleCommand::Password(_) => Ok(()),
            ConsoleCommand::Log(level) => {
                logging::set_level(level);
                log::info!("an operator has set the log's level to {level}");
                Ok(())
            }
            ConsoleCommand::Say(text) => {
                actions::say(lobby, context.doorbells, &text).map_err(|rejection| rejection.text)
            }
            ConsoleCommand::Kick(name) => {
                actions::kick(lobby, context.doorbells, &name).map_err(|error| error.to_string())
            }
            ConsoleCommand::Sanction { kind, name, time_ms } => {
                let done = actions::sanction(lobby, context.doorbells, (kind, &name, time_ms));
                done.map_err(|error| error.to_string())
            }
            ConsoleCommand::BanAddress { address, time_ms } => {
                let done = actions::ban_address(lobby, context.doorbells, address, time_ms);
                done.map_err(|error| error.to_string())
            }
            ConsoleCommand::UnbanAddress(address) => match actions::unban_address(lobby, address) {
                true => Ok(()),
                false => Err("there is no ban or penalty of that address".to_owned()),
            },
            ConsoleCommand::Unban(name) => actions::unban(lobby, &name).map_err(|error| error.to_string()),
            ConsoleCommand::Drain(drain) => {
                actions::drain(lobby, context, drain).map_err(|error| error.to_string())
            }
            ConsoleCommand::Upgrade => match Upgrade::start(context) {
                Ok(upgrade) => {
                    self.audit(line, &Ok(()));
                    return self.start_view(LiveView::Upgrade(upgrade));
                }
                Err(error) => Err(error),
            },
            ConsoleCommand::Stop => {
                actions::stop(context).map_err(|error| format!("cannot signal the supervisor: {error}"))
            }
            ConsoleCommand::Edit(on) => {
                self.terminal.set_editing(on, &mut self.output);
                Ok(())
            }
            ConsoleCommand::Quit => {
                self.write_line(replies::OK);
                self.enter(Stage::Closing);
                return;
            }
        };
        if is_act {
            self.audit(line, &done);
        }
        match done {
            Ok(()) => self.write_line(replies::OK),
            Err(why) => self.write_error(&why),
        }
    }

    /// Writes an act to the audit log, if there is one. Whether it can be written changes nothing about the act.
    fn audit(&self, line: &[u8], done: &Result<(), String>) {
        let Some(path) = self.context.config.audit_log else {
            return;
        };
        let peer = self.session.record().peer().to_string();
        let command = String::from_utf8_lossy(line);
        let outcome = match done {
            Ok(()) => replies::OK.to_owned(),
            Err(why) => format!("ERR {why}"),
        };
        if let Err(error) = audit::append(path, &peer, command.trim(), &outcome) {
            let header = self.context.memory.header;
            header.audit_lines_lost_total.fetch_add(1, Ordering::Relaxed);
            log::warn!(
                "an act of an operator is not in the audit log {}: {error}",
                path.display()
            );
        }
    }

    fn answer_query(&mut self, query: Query, format: Format) {
        let (context, lobby) = (self.context, &mut self.session.state);
        let fields = match query {
            Query::Processes { memory } => {
                return self.set_reply(Reply::list(queries::processes(context, memory), format));
            }
            Query::Players => return self.set_reply(Reply::list(queries::players(), format)),
            Query::Rooms => return self.set_reply(Reply::list(queries::rooms(), format)),
            Query::Closes => return self.set_reply(Reply::list(queries::close_reasons(), format)),
            Query::Events { count } => return self.set_reply(Reply::list(queries::events(count), format)),
            Query::Sources { penalised } => {
                return self.set_reply(Reply::list(queries::sources(penalised), format));
            }
            Query::Bans => return self.set_reply(Reply::list(queries::bans(), format)),
            Query::Locks { all } => return self.set_reply(Reply::list(queries::locks(context, all), format)),
            Query::Config => return self.set_reply(Reply::list(queries::config(context), format)),
            Query::Status => Ok(queries::status(lobby, context)),
            Query::LogLevel => Ok(queries::log_level(context)),
            Query::Player(player) => queries::player(lobby, &player),
            Query::Room { id, seat } => queries::room(lobby, id, seat),
        };
        match fields {
            Ok(fields) => self.set_reply(Reply::object(&fields, format)),
            Err(error) => self.write_error(&error.to_string()),
        }
    }
}
