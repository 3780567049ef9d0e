//! Plots as SVG. Colours are written as plain values, which the page's style sheet replaces by those of the
//! light or the dark scheme.

use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

const WIDTH: u32 = 960;
const HEIGHT: u32 = 300;
const STRIP_ROW_HEIGHT: u32 = 18;
const LABEL_WIDTH: u32 = 76;
const MARGIN: u32 = 10;
const LAST_LABEL_WIDTH: u32 = 70;
const FONT: (&str, u32) = ("sans-serif", 13);
/// Colours of text and of the grid.
const INK: RGBColor = RGBColor(0x10, 0x10, 0x10);
const GRID: RGBColor = RGBColor(0xE0, 0xE0, 0xE0);

/// The unit of latencies.
pub(crate) const MILLISECONDS: &str = "ms";

/// Why a plot could not be drawn.
#[derive(Debug, thiserror::Error)]
#[error("cannot draw a plot: {0}")]
pub(crate) struct PlotError(String);

impl<Cause: std::error::Error + Send + Sync> From<DrawingAreaErrorKind<Cause>> for PlotError {
    fn from(cause: DrawingAreaErrorKind<Cause>) -> Self {
        Self(cause.to_string())
    }
}

/// The colours of lines. `style.css` selects by these values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colour {
    Blue,
    Amber,
    Green,
    Violet,
    Red,
    Teal,
}

/// A line: its colour, its name, its points.
pub(crate) type Series<'a> = (Colour, &'a str, Vec<(f64, f64)>);

impl Colour {
    pub(crate) const ALL: [Self; 6] = [
        Self::Blue,
        Self::Amber,
        Self::Green,
        Self::Violet,
        Self::Red,
        Self::Teal,
    ];

    /// Its variable in the style sheet.
    pub(crate) const fn variable(self) -> &'static str {
        match self {
            Self::Blue => "--blue",
            Self::Amber => "--amber",
            Self::Green => "--green",
            Self::Violet => "--violet",
            Self::Red => "--red",
            Self::Teal => "--teal",
        }
    }

    const fn value(self) -> RGBColor {
        match self {
            Self::Blue => RGBColor(0x25, 0x63, 0xEB),
            Self::Amber => RGBColor(0xD9, 0x77, 0x06),
            Self::Green => RGBColor(0x05, 0x96, 0x69),
            Self::Violet => RGBColor(0x7C, 0x3A, 0xED),
            Self::Red => RGBColor(0xDC, 0x26, 0x26),
            Self::Teal => RGBColor(0x08, 0x91, 0xB2),
        }
    }
}

/// A plot over the seconds of the load, or over numbers of clients.
#[derive(Debug)]
pub(crate) struct Plot {
    /// The end of the horizontal axis.
    x_max: f64,
    x_unit: &'static str,
    unit: &'static str,
    logarithmic: bool,
}

impl Plot {
    pub(crate) fn over_time(seconds: f64, unit: &'static str) -> Self {
        Self {
            x_max: seconds,
            x_unit: "s",
            unit,
            logarithmic: false,
        }
    }

    pub(crate) fn over_clients(most: f64, unit: &'static str) -> Self {
        Self {
            x_max: most,
            x_unit: "",
            unit,
            logarithmic: false,
        }
    }

    /// Makes the vertical axis logarithmic.
    pub(crate) fn logarithmic(self) -> Self {
        Self {
            logarithmic: true,
            ..self
        }
    }

    /// Draws the plot, with faint vertical lines at `marks`.
    pub(crate) fn draw(&self, series: &[Series<'_>], marks: &[f64]) -> Result<String, PlotError> {
        let values = || {
            series
                .iter()
                .flat_map(|(_, _, points)| points)
                .map(|(_, value)| *value)
        };
        let highest = values().fold(0.0, f64::max);
        let style = |value: &f64| label(*value, self.unit);
        let along = 0.0..self.x_max;
        if self.logarithmic {
            let range = decades(values());
            self.draw_on(along, range.log_scale(), series, marks, &style)
        } else {
            self.draw_on(along, 0.0..(highest * 1.1).max(1.0), series, marks, &style)
        }
    }

    fn draw_on<Y>(
        &self,
        along: std::ops::Range<f64>,
        range: Y,
        series: &[Series<'_>],
        marks: &[f64],
        style: &dyn Fn(&f64) -> String,
    ) -> Result<String, PlotError>
    where
        Y: AsRangedCoord<Value = f64>,
        Y::CoordDescType: ValueFormatter<f64>,
    {
        svg(HEIGHT, |area| {
            let mut chart = ChartBuilder::on(area)
                .margin(MARGIN)
                .x_label_area_size(26)
                .y_label_area_size(LABEL_WIDTH)
                .build_cartesian_2d(along, range)?;
            chart
                .configure_mesh()
                .light_line_style(TRANSPARENT)
                .bold_line_style(GRID)
                .axis_style(GRID)
                .label_style(FONT.into_font().color(&INK))
                .x_labels(11)
                .x_label_formatter(&|at| format!("{at} {}", self.x_unit).trim_end().to_owned())
                .y_labels(6)
                .y_label_formatter(style)
                .draw()?;
            let (low, high) = {
                let range = chart.y_range();
                (range.start, range.end)
            };
            let upright = |at: &f64| PathElement::new(vec![(*at, low), (*at, high)], GRID.stroke_width(2));
            chart.draw_series(marks.iter().map(upright))?;
            for (colour, _, points) in series {
                let line = colour.value().stroke_width(2);
                chart.draw_series(LineSeries::new(points.iter().copied(), line))?;
                // Over numbers of clients there are few points, and nothing was measured between them.
                if points.len() == 1 || self.x_unit.is_empty() {
                    let mark = |point: &(f64, f64)| Circle::new(*point, 3, colour.value().filled());
                    chart.draw_series(points.iter().map(mark))?;
                }
            }
            Ok(())
        })
    }
}

/// A row for each role with a mark at each of its times.
pub(crate) fn kill_strip(seconds: f64, marks: &[(f64, &str)]) -> Result<String, PlotError> {
    let mut roles: Vec<&str> = marks.iter().map(|(_, role)| *role).collect();
    roles.sort_unstable();
    roles.dedup();
    let rows = u32::try_from(roles.len()).unwrap_or(1);
    svg(rows * STRIP_ROW_HEIGHT, |area| {
        for ((row, role), colour) in (0..).zip(&roles).zip(Colour::ALL.into_iter().cycle()) {
            let top = row * i32::try_from(STRIP_ROW_HEIGHT).unwrap_or(i32::MAX);
            let position = |pixels: u32| i32::try_from(pixels).unwrap_or(i32::MAX);
            let left = position(MARGIN + LABEL_WIDTH);
            let right = position(WIDTH - MARGIN);
            let name = FONT
                .into_font()
                .color(&INK)
                .pos(plotters::style::text_anchor::Pos::new(
                    plotters::style::text_anchor::HPos::Right,
                    plotters::style::text_anchor::VPos::Center,
                ));
            area.draw(&Text::new((*role).to_owned(), (left - 8, top + 9), &name))?;
            area.draw(&PathElement::new(vec![(left, top + 9), (right, top + 9)], GRID))?;
            for (at, _) in marks.iter().filter(|(_, of)| of == role) {
                let share = (at / seconds).clamp(0.0, 1.0);
                #[expect(clippy::cast_possible_truncation, reason = "pixels of a plot")]
                let along = left + (f64::from(right - left) * share) as i32;
                area.draw(&PathElement::new(
                    vec![(along, top + 3), (along, top + 15)],
                    colour.value(),
                ))?;
            }
        }
        Ok(())
    })
}

/// Milliseconds over the share of all messages; the axis is stretched towards the largest shares.
pub(crate) fn percentiles(curves: &[Series<'_>]) -> Result<String, PlotError> {
    // The share 0.99 is drawn at 1 / (1 - 0.99) = 100, 0.999 at 1000.
    let stretched = |points: &Vec<(f64, f64)>| -> Vec<(f64, f64)> {
        points
            .iter()
            .map(|(share, ms)| (1.0 / (1.0 - share), *ms))
            .collect()
    };
    let curves: Vec<_> = curves
        .iter()
        .map(|(colour, _, points)| (colour, stretched(points)))
        .collect();
    let points = || curves.iter().flat_map(|(_, points)| points);
    let x_max = points().map(|(at, _)| *at).fold(100.0, f64::max);
    let range = decades(points().map(|(_, ms)| *ms));
    svg(HEIGHT, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(MARGIN)
            // Room for half of the last label.
            .margin_right(LAST_LABEL_WIDTH / 2)
            .x_label_area_size(26)
            .y_label_area_size(LABEL_WIDTH)
            .build_cartesian_2d((1.0..x_max).log_scale(), range.log_scale())?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(GRID)
            .label_style(FONT.into_font().color(&INK))
            .x_label_formatter(&|at| share(*at))
            .y_labels(6)
            .y_label_formatter(&|ms| label(*ms, MILLISECONDS))
            .draw()?;
        for (colour, points) in &curves {
            chart.draw_series(LineSeries::new(
                points.iter().copied(),
                colour.value().stroke_width(2),
            ))?;
        }
        Ok(())
    })
}

/// Draws on an area as wide as the page.
fn svg(
    height: u32,
    draw: impl FnOnce(&DrawingArea<SVGBackend<'_>, Shift>) -> Result<(), PlotError>,
) -> Result<String, PlotError> {
    let mut svg = String::new();
    let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
    draw(&area)?;
    area.present()?;
    drop(area);
    Ok(svg)
}

/// The powers of ten that enclose all values.
fn decades(values: impl Iterator<Item = f64> + Clone) -> std::ops::Range<f64> {
    let positive = values.filter(|value| *value > 0.0);
    let lowest = positive.clone().fold(f64::INFINITY, f64::min);
    let highest = positive.fold(0.0, f64::max);
    if lowest > highest {
        return 0.1..1.0;
    }
    let low = 10_f64.powf(lowest.log10().floor());
    low..10_f64.powf(highest.log10().ceil()).max(low * 10.0)
}

/// The label of a share on the stretched axis: 100 is "99 %".
fn share(at: f64) -> String {
    let percent = 100.0 - 100.0 / at;
    let digits = (at.log10().round() - 2.0).max(0.0);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a few digits"
    )]
    let digits = digits as usize;
    format!("{percent:.digits$} %")
}

/// A value with its unit; thousands of milliseconds are shown as seconds.
fn label(value: f64, unit: &str) -> String {
    match unit {
        MILLISECONDS if value >= 1000.0 => format!("{} s", number(value / 1000.0)),
        _ => format!("{} {unit}", number(value)).trim_end().to_owned(),
    }
}

/// With as many digits as distinguish one label from the next.
fn number(value: f64) -> String {
    match value.abs() {
        large if large >= 10_000.0 => format!("{} k", number(value / 1000.0)),
        _ => {
            let text = format!("{value:.3}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_colour_is_in_the_style_sheet_for_both_schemes() {
        let style = include_str!("style.css");
        for colour in Colour::ALL {
            let RGBColor(red, green, blue) = colour.value();
            let selector = format!("[stroke=\"#{red:02X}{green:02X}{blue:02X}\"]");
            assert!(style.contains(&selector), "{selector}");
            assert_eq!(
                style.matches(&format!("{}:", colour.variable())).count(),
                2,
                "{colour:?}"
            );
        }
    }

    #[test]
    fn lines_have_their_colours_and_text_has_ink() {
        let series = [(Colour::Green, "sent", vec![(1.0, 5.0), (2.0, 50.0)])];
        for plot in [
            Plot::over_time(10.0, "ms"),
            Plot::over_time(10.0, "ms").logarithmic(),
        ] {
            let svg = plot.draw(&series, &[1.5]).expect("it is drawn");
            assert!(
                svg.contains("<polyline") && svg.contains("#059669") && svg.contains("#101010"),
                "{svg}"
            );
        }
        let svg = kill_strip(10.0, &[(1.0, "handler"), (2.0, "keeper")]).expect("it is drawn");
        assert!(svg.contains("handler") && svg.contains("keeper"));
    }

    #[test]
    fn labels_are_short() {
        assert_eq!(
            [label(10.0, MILLISECONDS), label(10_000.0, MILLISECONDS)],
            ["10 ms", "10 s"]
        );
        assert_eq!([label(5.0, ""), label(5.0, "%")], ["5", "5 %"]);
        assert_eq!(
            [0.0, 0.5, 100.0, 12_500.0].map(number),
            ["0", "0.5", "100", "12.5 k"]
        );
        assert_eq!(
            [1.0, 10.0, 100.0, 1000.0, 100_000.0].map(share),
            ["0 %", "90 %", "99 %", "99.9 %", "99.999 %"]
        );
    }

    #[test]
    fn decades_enclose_all_values() {
        assert_eq!(decades([0.2, 3.0, 38.0].into_iter()), 0.1..100.0);
        assert_eq!(decades([5.0].into_iter()), 1.0..10.0);
        assert_eq!(decades([].into_iter()), 0.1..1.0);
    }
}
