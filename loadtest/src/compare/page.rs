//! The comparison as an HTML page.

use std::fmt::{self, Write};
use std::io;

use super::{Comparison, Figures, Pacing, Summary};
use crate::report::page::plots::{self, Colour, Plot, PlotError, Series};
use crate::report::page::{
    Escaped, Figure, command_line, write_end, write_figure, write_head, write_machine,
};

/// The whole page.
///
/// # Errors
/// When a plot cannot be drawn, which is a bug of this program.
pub(super) fn render(comparison: &Comparison) -> io::Result<String> {
    let figures = figures(comparison).map_err(io::Error::other)?;
    let mut page = String::new();
    write(&mut page, comparison, &figures).map_err(io::Error::other)?;
    Ok(page)
}

fn figures(comparison: &Comparison) -> Result<Vec<Figure>, PlotError> {
    let mut figures = Vec::new();
    let curves: Vec<Series<'_>> = coloured(comparison)
        .filter_map(|(colour, name)| {
            let curve = curve_of(comparison, name)?;
            (!curve.is_empty()).then_some((colour, name, curve))
        })
        .collect();
    if !curves.is_empty() {
        figures.push(Figure {
            title: "Latency by percentile, paced",
            caption: "Which share of all messages was received within how many milliseconds, at the largest number of clients, in the \
                    first round.",
            legend: legend(&curves),
            svg: plots::percentiles(&curves)?,
        });
    }
    type Of = fn(&Summary) -> Option<f64>;
    let lines: [(&'static str, &'static str, &'static str, bool, Of); 6] = [
        (
            "99th percentile of latency, paced",
            "Against the number of clients.",
            plots::MILLISECONDS,
            true,
            |row| row.paced_p99_ms,
        ),
        (
            "Throughput, closed loop",
            "Messages received by the server per second, one outstanding per client.",
            "",
            false,
            |row| row.messages_in_per_second,
        ),
        (
            "CPU time per message, closed loop",
            "Of all the server's processes together. It does not depend on how many cores the load generator needs.",
            "µs",
            false,
            |row| row.cpu_us_per_message,
        ),
        (
            "Joins per second",
            "Each join is a connection, a handshake and a room.",
            "",
            true,
            |row| row.joins_per_second,
        ),
        (
            "Memory per client",
            "Of the server's processes, shared pages counted once, with page tables and kernel stacks.",
            "KiB",
            true,
            |row| row.memory_kib_per_client,
        ),
        (
            "Memory per client, with kernel memory",
            "The same, and all memory that the machine's kernel cannot reclaim: sockets and open files (the load generator's too).",
            "KiB",
            true,
            |row| row.memory_all_kib_per_client,
        ),
    ];
    for (title, caption, unit, logarithmic, of) in lines {
        let series: Vec<Series<'_>> = coloured(comparison)
            .map(|(colour, name)| (colour, name, against_clients(comparison, name, of)))
            .filter(|(_, _, points)| !points.is_empty())
            .collect();
        if series.is_empty() {
            continue;
        }
        let most = comparison.summaries.iter().map(|row| row.clients).max();
        let plot = Plot::over_clients(f64::from(most.unwrap_or(1)), unit);
        let plot = if logarithmic { plot.logarithmic() } else { plot };
        figures.push(Figure {
            title,
            caption,
            legend: legend(&series),
            svg: plot.draw(&series, &[])?,
        });
    }
    Ok(figures)
}

fn coloured(comparison: &Comparison) -> impl Iterator<Item = (Colour, &str)> {
    let names = comparison
        .candidates
        .iter()
        .map(|candidate| candidate.name.as_str());
    Colour::ALL.into_iter().cycle().zip(names)
}

fn legend(series: &[Series<'_>]) -> Vec<(Colour, String)> {
    series
        .iter()
        .map(|(colour, name, _)| (*colour, (*name).to_owned()))
        .collect()
}

fn against_clients(comparison: &Comparison, name: &str, of: fn(&Summary) -> Option<f64>) -> Vec<(f64, f64)> {
    let rows = comparison.summaries.iter().filter(|row| row.candidate == name);
    let mut points: Vec<(f64, f64)> = rows
        .filter_map(|row| Some((f64::from(row.clients), of(row)?)))
        .collect();
    points.sort_by(|one, other| one.0.total_cmp(&other.0));
    points
}

/// The percentile curve at the largest number of clients, in the first round.
fn curve_of(comparison: &Comparison, name: &str) -> Option<Vec<(f64, f64)>> {
    let paced = comparison
        .measurements
        .iter()
        .filter(|run| run.candidate == name && run.pacing == Pacing::Paced && run.round == 1);
    let largest = paced.max_by_key(|run| run.clients)?;
    let Figures { workloads, .. } = largest.figures.as_ref()?;
    Some(workloads.first()?.latency_curve.clone())
}

fn write(page: &mut String, comparison: &Comparison, figures: &[Figure]) -> fmt::Result {
    write_head(page, "Forkade and others")?;
    writeln!(
        page,
        "<p class=\"about\">{}</p>\n</header>",
        Escaped(&comparison.description)
    )?;
    write_table(page, comparison)?;
    for figure in figures {
        write_figure(page, figure)?;
    }
    page.push_str("<section>\n<h2>What the others do not do</h2>\n<table>\n");
    let peers = comparison
        .candidates
        .iter()
        .filter_map(|candidate| candidate.peer);
    for peer in peers {
        writeln!(
            page,
            "<tr><th>{}</th><td>{}</td></tr>",
            peer.name(),
            Escaped(peer.about())
        )?;
    }
    page.push_str("</table>\n</section>\n");
    write_remarks(page, comparison)?;
    page.push_str("<section>\n<h2>Each measurement</h2>\n<pre>");
    for run in &comparison.measurements {
        writeln!(page, "{}", Escaped(&command_line(&run.command)))?;
    }
    page.push_str("</pre>\n<table>\n");
    write_machine(page, &comparison.machine)?;
    page.push_str("</table>\n</section>\n");
    write_end(page)
}

fn write_table(page: &mut String, comparison: &Comparison) -> fmt::Result {
    let (names, rows) = comparison.rows();
    let clients = rows.first().map_or(0, |(row, _)| row.clients);
    write!(
        page,
        "<section class=\"wide\">\n<table>\n<tr><th>{clients} clients</th>"
    )?;
    for name in &names {
        write!(page, "<th>{name}</th>")?;
    }
    page.push_str("</tr>\n");
    for (row, cells) in &rows {
        write!(page, "<tr><th>{}</th>", Escaped(&row.candidate))?;
        for (figure, ratio) in cells {
            write!(page, "<td>{figure} <small>{ratio}</small></td>")?;
        }
        page.push_str("</tr>\n");
    }
    for (label, ratios) in comparison.ratios_to_peers() {
        write!(page, "<tr><th>{}</th>", Escaped(&label))?;
        for ratio in ratios {
            write!(page, "<td>{ratio}</td>")?;
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table>\n</section>\n");
    Ok(())
}

fn write_remarks(page: &mut String, comparison: &Comparison) -> fmt::Result {
    page.push_str("<section>\n<h2>Remarks</h2>\n");
    for row in &comparison.summaries {
        for remark in &row.remarks {
            let (candidate, remark) = (Escaped(&row.candidate), Escaped(remark));
            writeln!(
                page,
                "<p class=\"note\">{candidate}, {} clients, {remark}</p>",
                row.clients
            )?;
        }
    }
    for skipped in &comparison.skipped {
        writeln!(page, "<p class=\"note\">skipped: {}</p>", Escaped(skipped))?;
    }
    for failure in comparison.failures() {
        writeln!(page, "<p class=\"verdict bad\">{}</p>", Escaped(failure))?;
    }
    page.push_str("</section>\n");
    Ok(())
}
