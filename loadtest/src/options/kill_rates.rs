//! The value of `--chaos`: how often a process of which role is killed.

use std::str::FromStr;

use crate::plan::check_per_second;
use crate::server::roles::{HANDLER, SUPERVISOR};

/// Kills per second, by role.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct KillRates {
    rates: Vec<(String, f64)>,
}

impl KillRates {
    /// Kills only handlers; `rate` is above 0.
    pub(crate) fn of_handlers(rate: f64) -> Self {
        Self {
            rates: vec![(HANDLER.to_owned(), rate)],
        }
    }

    /// Each role and how many of its processes are killed per second. No role occurs twice, and no rate is 0.
    pub(crate) fn rates(&self) -> impl Iterator<Item = (&str, f64)> {
        self.rates.iter().map(|(role, rate)| (role.as_str(), *rate))
    }
}

impl FromStr for KillRates {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut rates: Vec<(String, f64)> = Vec::new();
        for term in text.split(',').map(str::trim) {
            let (role, rate) = term
                .split_once('=')
                .ok_or_else(|| format!("{term:?} is not of the form ROLE=N/s"))?;
            let (role, rate) = (role.trim(), rate.trim());
            if role.is_empty() || !role.bytes().all(|byte| byte.is_ascii_lowercase()) {
                return Err(format!(
                    "{role:?} is no role: roles have names like handler, keeper, listener, ticker"
                ));
            }
            if role == SUPERVISOR {
                return Err(
                    "killing the supervisor ends the server, so nothing could be measured".to_owned(),
                );
            }
            if rates.iter().any(|(known, _)| known == role) {
                return Err(format!("{role} occurs twice"));
            }
            let number = rate.strip_suffix("/s").unwrap_or(rate).parse().ok();
            let rate = number
                .and_then(|number| check_per_second(number).ok())
                .filter(|rate| *rate > 0.0)
                .ok_or_else(|| {
                    format!("{role}={rate}: the rate must be a number above 0, such as {role}=0.5/s")
                })?;
            rates.push((role.to_owned(), rate));
        }
        Ok(Self { rates })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_has_its_own_rate() {
        let chaos: KillRates = "handler=20/s, listener=1/s,keeper=0.2".parse().expect("valid");
        assert_eq!(
            chaos.rates().collect::<Vec<_>>(),
            [("handler", 20.0), ("listener", 1.0), ("keeper", 0.2)]
        );
        assert_eq!("handler=5/s".parse(), Ok(KillRates::of_handlers(5.0)));
    }

    #[test]
    fn an_invalid_value_is_refused_with_a_reason() {
        for (text, reason) in [
            ("", "form ROLE=N/s"),
            ("handler", "form ROLE=N/s"),
            ("handler=1,", "form ROLE=N/s"),
            ("handler=0", "above 0"),
            ("handler=-1/s", "above 0"),
            ("handler=often", "above 0"),
            ("handler=1/m", "above 0"),
            ("=1/s", "no role"),
            ("Handler=1/s", "no role"),
            ("handler=1/s,handler=2/s", "twice"),
            ("supervisor=1/s", "ends the server"),
        ] {
            let reported = text.parse::<KillRates>().expect_err(text);
            assert!(reported.contains(reason), "{text}: {reported}");
        }
    }
}
