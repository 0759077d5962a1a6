//! The linear assignment problem with a limit on the cost of a pair.

use pathfinding::matrix::Matrix;
use pathfinding::prelude::kuhn_munkres;

/// Parts that a cost of 1 is divided into: the solver counts in whole numbers.
const UNIT: f64 = (1u64 << 40) as f64;

/// The column of each row, such that the sum of the costs is the least, where every row and every column without a partner costs half
/// the limit: LAPJV's with `extend_cost` and `cost_limit`.
///
/// `costs` are row by row, `columns` each, and finite.
pub(crate) fn assign(costs: &[f64], columns: usize, limit: f64) -> Vec<Option<usize>> {
    let Some(rows) = costs.len().checked_div(columns) else {
        return Vec::new();
    };
    let mut matches = vec![None; rows];
    if rows == 0 {
        return matches;
    }
    // A pair saves what its cost is below the limit; one that saves nothing is none.
    let saves = |row: usize, column: usize| {
        let saved = (limit - costs[row * columns + column]).max(0.0);
        (saved * UNIT).round() as i64
    };
    let (few, many) = (rows.min(columns), rows.max(columns));
    let pair = |i, j| if rows <= columns { (i, j) } else { (j, i) };
    let saved = Matrix::from_fn(few, many, |(i, j)| {
        let (row, column) = pair(i, j);
        saves(row, column)
    });
    for (i, j) in kuhn_munkres(&saved).1.into_iter().enumerate() {
        let (row, column) = pair(i, j);
        if saves(row, column) > 0 {
            matches[row] = Some(column);
        }
    }
    matches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_the_least() {
        // Greedy matching takes 0.1 and is left with 0.9.
        let costs = [0.1, 0.2, 0.2, 0.9];
        assert_eq!(assign(&costs, 2, 1.0), [Some(1), Some(0)]);
        // Beyond the limit, one pair is better than two.
        assert_eq!(assign(&[0.0, 0.4, 0.45, 0.9], 2, 0.5), [Some(0), None]);
    }

    #[test]
    fn rows_and_columns_may_be_left_over() {
        assert_eq!(assign(&[0.5, 0.1, 0.9], 3, 0.8), [Some(1)]);
        assert_eq!(assign(&[0.5, 0.1, 0.9], 1, 0.8), [None, Some(0), None]);
        assert_eq!(assign(&[0.9, 0.8], 2, 0.8), [None]);
        assert_eq!(assign(&[], 3, 0.8), []);
        assert_eq!(assign(&[f64::NAN, 0.3], 2, 0.8), [Some(1)]);
    }
}
