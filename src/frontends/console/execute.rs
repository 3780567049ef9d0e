//! What becomes of each command.

use crate::frontends::console::commands;
use crate::frontends::console::commands::{Command, Form, Query};
use crate::frontends::console::live_views::{Activity, Ping, Trace, Upgrade, Watch};
use crate::frontends::console::replies;
use crate::frontends::console::replies::Reply;
use crate::frontends::console::{Console, Stage, actions, queries};
use crate::logging;

impl Console<'_> {
    pub(crate) fn obey(&mut self, line: &[u8]) {
        match commands::parse(line) {
            Ok(command) => self.carry_out(command),
            Err(error) => self.refuse(&error.to_string()),
        }
    }

    fn carry_out(&mut self, command: Command) {
        let (context, lobby) = (self.context, &mut self.session.state);
        let done = match command {
            Command::Help(None) => return self.answer(Reply::lines(commands::overview())),
            Command::Help(Some(about)) => return self.answer(Reply::lines(about.explanation())),
            Command::Query(query, form) => return self.look_up(query, form),
            Command::Ping(form) => return self.begin(Activity::Ping(Ping::ask(context, form))),
            Command::Watch { room, hidden } => match Watch::begin(lobby, context, room, hidden) {
                Ok(watch) => return self.begin(Activity::Watch(watch)),
                Err(error) => Err(error.to_string()),
            },
            Command::Trace(whom) => match Trace::begin(lobby, &whom) {
                Ok(trace) => return self.begin(Activity::Trace(trace)),
                Err(error) => Err(error.to_string()),
            },
            Command::Log(level) => {
                logging::set_level(level);
                log::info!("an operator has set the log's level to {level}");
                Ok(())
            }
            Command::Say(text) => {
                actions::say(lobby, context.wiring, &text).map_err(|rejection| rejection.text)
            }
            Command::Kick(name) => {
                actions::kick(lobby, context.wiring, &name).map_err(|error| error.to_string())
            }
            Command::Drain(drain) => actions::drain(context, drain).map_err(|error| error.to_string()),
            Command::Upgrade => match Upgrade::ask(context) {
                Ok(upgrade) => return self.begin(Activity::Upgrade(upgrade)),
                Err(error) => Err(error),
            },
            Command::Stop => {
                actions::stop(context).map_err(|error| format!("cannot signal the supervisor: {error}"))
            }
            Command::Edit(on) => {
                self.terminal.set_editing(on, &mut self.output);
                Ok(())
            }
            Command::Quit => {
                self.say(replies::OK);
                self.enter(Stage::Ending);
                return;
            }
        };
        match done {
            Ok(()) => self.say(replies::OK),
            Err(why) => self.refuse(&why),
        }
    }

    fn look_up(&mut self, query: Query, form: Form) {
        let (context, lobby) = (self.context, &mut self.session.state);
        let fields = match query {
            Query::Processes { memory } => {
                return self.answer(Reply::list(queries::processes(context, memory), form));
            }
            Query::Players => return self.answer(Reply::list(queries::players(), form)),
            Query::Rooms => return self.answer(Reply::list(queries::rooms(), form)),
            Query::Locks { all } => return self.answer(Reply::list(queries::locks(context, all), form)),
            Query::Config => return self.answer(Reply::list(queries::config(context), form)),
            Query::Status => Ok(queries::status(lobby, context)),
            Query::LogLevel => Ok(queries::log_level(context)),
            Query::Player(whom) => queries::player(lobby, &whom),
            Query::Room { id, seat } => queries::room(lobby, id, seat),
        };
        match fields {
            Ok(fields) => self.answer(Reply::object(&fields, form)),
            Err(error) => self.refuse(&error.to_string()),
        }
    }
}
