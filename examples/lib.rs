//! Small programs that show rcnn-burn in use, a file each: `cargo run --release --example detect`.

#[cfg(test)]
mod tests {
    use rcnn_burn::FasterRcnnConfig;
    use rcnn_burn::train::TrainConfig;
    use rcnn_burn::types::Size;

    /// The detector that a run's description makes, for one class of objects.
    fn detector(text: &str) -> FasterRcnnConfig {
        let run = TrainConfig::from_toml(text).expect("a description");
        run.validate().expect("values that make sense");
        let model = FasterRcnnConfig::default().overridden(&run.model);
        let config = FasterRcnnConfig {
            num_classes: 2,
            ..model.expect("a model")
        };
        config.validate().expect("a model that fits together");
        config
    }

    #[test]
    fn descriptions_of_runs_are_valid() {
        detector(include_str!("bccd.toml"));
        detector(include_str!("blood-cells.toml"));
        detector(include_str!("../bench/nuclei/masks.toml"));
        detector(include_str!("../bench/nuclei/keypoints.toml"));
    }

    #[test]
    fn the_mask_model_for_nuclei_is_under_5_mb_in_f16() {
        let config = detector(include_str!("nuclei.toml"));
        let costs = config.costs(Size::new(128, 128)).expect("costs");
        let parameters = costs.total().parameters;
        assert!((2_300_000..2_450_000).contains(&parameters), "{parameters}");
    }
}
