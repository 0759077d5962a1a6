//! torchvision's size of a resized image in whole numbers.
//!
//! torchvision computes `floor(side * (limit / reference))` in double precision, which OpenVINO does not have. The result is
//! the whole quotient `n = side * limit / reference`, except that it can be one less where the division has no remainder.
//! The scale is rounded to 53 binary digits. If that cuts off `r / reference` of the last digit, the product is too small by
//! `side * r / reference` of that digit. It is rounded back to `n` unless this exceeds half the distance from `n` to the next
//! smaller double.

use crate::builder::{Builder, Value};

/// Largest exponent in the table of powers of two.
const MOST: i64 = 30;
/// Binary digits of a double.
const DIGITS: i64 = 53;
/// Places that a remainder is shifted by at once: OpenVINO computes whole numbers in single precision, which has 24.
const STEP: i64 = 11;
/// As many as a limit of 1 and a reference of 2^30 need.
const STEPS: usize = 8;

/// Sides `[n]` in pixels, times limit by reference `[1]`, rounded as torchvision does; 1 at least.
pub(super) fn scaled(sides: &Value, reference: &Value, limit: i64, b: &mut Builder) -> Value {
    let [zero, one, two, all, step, digits] =
        [0, 1, 2, limit, STEP, DIGITS - 1].map(|number| b.ints(&[number]));
    let product = b.op("Mul", [sides, &all]);
    let whole = b.op("Div", [&product, reference]);

    // The last digit of the scale stands for 2 to the power of `-places`.
    let exponent = exponent(limit, reference, b);
    let mut places = b.op("Sub", [&digits, &exponent]);
    let mut cut = b.op("Mod", [&all, reference]);
    for _ in 0..STEPS {
        let some = b.op("Min", [&places, &step]);
        places = b.op("Sub", [&places, &some]);
        let power = power_of_two(&some, b);
        let shifted = b.op("Mul", [&cut, &power]);
        cut = b.op("Mod", [&shifted, reference]);
    }

    let twice = b.op("Mul", [&cut, &two]);
    let is_cut = is_less(&twice, reference, b);
    let lost = b.op("Mul", [sides, &twice]);
    let below = b.op("Sub", [&whole, &one]);
    let below = b.op("Max", [&below, &one]);
    let distance = log2(&below, b);
    let distance = b.op("Sub", [&distance, &exponent]);
    let distance = b.op("Max", [&distance, &zero]);
    let distance = power_of_two(&distance, b);
    let kept = b.op("Mul", [reference, &distance]);
    let is_lost = is_less(&kept, &lost, b);
    let remainder = b.op("Mod", [&product, reference]);
    let is_whole = is_less(&remainder, &one, b);
    let less = b.op("Mul", [&is_cut, &is_lost]);
    let less = b.op("Mul", [&less, &is_whole]);
    let scaled = b.op("Sub", [&whole, &less]);
    b.op("Max", [&scaled, &one])
}

/// The exponent of a number by another `[1]`, the whole part of the quotient's logarithm of 2.
fn exponent(number: i64, by: &Value, b: &mut Builder) -> Value {
    let (log, zero) = (log2(by, b), b.ints(&[0]));
    let own = b.ints(&[i64::from(number.max(1).ilog2())]);
    let up = b.op("Sub", [&own, &log]);
    let down = b.op("Sub", [&log, &own]);
    let [shift, other] = [&down, &up].map(|shift| {
        let shift = b.op("Max", [shift, &zero]);
        power_of_two(&shift, b)
    });
    let number = b.ints(&[number]);
    let (number, by) = (b.op("Mul", [&number, &shift]), b.op("Mul", [by, &other]));
    let is_less = is_less(&number, &by, b);
    b.op("Sub", [&up, &is_less])
}

/// The whole part of the logarithm of 2 of numbers from 1.
fn log2(x: &Value, b: &mut Builder) -> Value {
    let one = b.ints(&[1]);
    let (mut x, mut log) = (x.clone(), b.ints(&[0]));
    for step in [16, 8, 4, 2, 1] {
        let (size, less) = (b.ints(&[1 << step]), b.ints(&[(1 << step) - 1]));
        let part = b.op("Div", [&x, &size]);
        let is_large = b.op("Min", [&part, &one]);
        let divisor = b.op("Mul", [&is_large, &less]);
        let divisor = b.op("Add", [&divisor, &one]);
        x = b.op("Div", [&x, &divisor]);
        let step = b.ints(&[step]);
        let more = b.op("Mul", [&is_large, &step]);
        log = b.op("Add", [&log, &more]);
    }
    log
}

fn power_of_two(exponent: &Value, b: &mut Builder) -> Value {
    let powers: Vec<i64> = (0..=MOST).map(|exponent| 1 << exponent).collect();
    let (powers, most) = (b.ints(&powers), b.ints(&[MOST]));
    let exponent = b.op("Min", [exponent, &most]);
    b.gather(&powers, &exponent, 0)
}

/// 1 where one whole number is less than another, 0 elsewhere.
fn is_less(x: &Value, than: &Value, b: &mut Builder) -> Value {
    let (zero, one) = (b.ints(&[0]), b.ints(&[1]));
    let more = b.op("Sub", [than, x]);
    let more = b.op("Min", [&more, &one]);
    b.op("Max", [&more, &zero])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In OpenVINO, a picture of 97 x 131 pixels was resized to 800 instead of 799.
    #[test]
    fn sides_are_scaled_as_in_double_precision() {
        let mut differ = 0;
        for limit in [1, 48, 80, 240, 320, 600, 800, 1333, 4096] {
            for reference in (1..150).chain([1333, 2048, 3000, 8191]) {
                let sides = [1, 2, 3, 7].map(|times| times * reference);
                let sides = [&sides[..], &[reference + 1, 1333, 4000]].concat();
                let mut b = Builder::new(13, false);
                let given = [b.ints(&sides), b.ints(&[reference])];
                let found = scaled(&given[0], &given[1], limit, &mut b);
                let scale = limit as f64 / reference as f64;
                let exact = sides
                    .iter()
                    .map(|&side| (side as f64 * scale).floor() as i64);
                let exact: Vec<i64> = exact.map(|side| side.max(1)).collect();
                assert_eq!(
                    b.known(&found),
                    Some(exact.clone()),
                    "{sides:?} times {limit} by {reference}"
                );
                let whole = sides.iter().map(|side| (side * limit / reference).max(1));
                differ += whole
                    .zip(exact)
                    .filter(|(whole, exact)| whole != exact)
                    .count();
            }
        }
        assert!(differ > 100, "{differ}");
    }
}
