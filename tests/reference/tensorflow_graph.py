"""Faster R-CNN over Inception v2 as TensorFlow's Object Detection API builds it for inference, with its names of variables.

Written from the facts, not from the API's code: layers, padding, norms, anchors, box coder, `crop_and_resize`, and the order
of clipping and suppression of 2018 and of 2019, which `year` chooses. One image at a time, as `exporter.py` has it.
"""

import tensorflow as tf

v1 = tf.compat.v1

BLOCKS = {  # stride, convolutions of each branch, pooling and the channels after it
    "Mixed_3b": (1, [[64], [64, 64], [64, 96, 96]], ("avg", 32)),
    "Mixed_3c": (1, [[64], [64, 96], [64, 96, 96]], ("avg", 64)),
    "Mixed_4a": (2, [[128, 160], [64, 96, 96]], ("max", None)),
    "Mixed_4b": (1, [[224], [64, 96], [96, 128, 128]], ("avg", 128)),
    "Mixed_4c": (1, [[192], [96, 128], [96, 128, 128]], ("avg", 128)),
    "Mixed_4d": (1, [[160], [128, 160], [128, 160, 160]], ("avg", 96)),
    "Mixed_4e": (1, [[96], [128, 192], [160, 192, 192]], ("avg", 96)),
    "Mixed_5a": (2, [[128, 192], [192, 256, 256]], ("max", None)),
    "Mixed_5b": (1, [[352], [192, 320], [160, 224, 224]], ("avg", 128)),
    "Mixed_5c": (1, [[352], [192, 320], [192, 224, 224]], ("max", 128)),
}


class Graph:
    """`initial(name, shape)` gives the value of a variable; `options` are those of `pipeline.config`."""

    def __init__(self, initial, num_classes, depth_multiplier=1.0, min_depth=16, year=2018, **options):
        self.initial, self.num_classes, self.year = initial, num_classes, year
        self.depth = lambda d: max(int(d * depth_multiplier), min_depth)
        self.options = {
            "min_dimension": 600,
            "max_dimension": 1024,
            "scales": [0.25, 0.5, 1.0, 2.0],
            "aspect_ratios": [0.5, 1.0, 2.0],
            "box_predictor_depth": 512,
            "max_proposals": 100,
            "first_stage_iou": 0.7,
            "score_threshold": 0.3,
            "second_stage_iou": 0.6,
            "max_per_class": 100,
            "max_total": 100,
            **options,
        }

    def variable(self, name, shape):
        full = f"{v1.get_variable_scope().name}/{name}".lstrip("/")
        shape = [int(s) for s in shape]
        value = self.initial(full, shape)
        return v1.get_variable(name, shape, tf.float32, initializer=v1.constant_initializer(value, tf.float32))

    def norm_relu(self, x):
        with v1.variable_scope("BatchNorm"):
            gamma, beta, mean, variance = (
                self.variable(name, [x.shape[-1]]) for name in ("gamma", "beta", "moving_mean", "moving_variance")
            )
        x, _, _ = v1.nn.fused_batch_norm(x, gamma, beta, mean, variance, epsilon=0.001, is_training=False)
        return tf.nn.relu(x)

    def conv(self, x, scope, out, kernel, stride=1):
        with v1.variable_scope(scope):
            weights = self.variable("weights", [kernel, kernel, x.shape[-1], self.depth(out)])
            return self.norm_relu(tf.nn.conv2d(x, weights, stride, "SAME"))

    def block(self, x, name):
        stride, branches, (pool, after) = BLOCKS[name]
        outputs = []
        with v1.variable_scope(name):
            for number, channels in enumerate(branches):
                with v1.variable_scope(f"Branch_{number}"):
                    y = self.conv(x, "Conv2d_0a_1x1", channels[0], 1)
                    for place, out in enumerate(channels[1:], 1):
                        last = stride == 2 and place == len(channels) - 1
                        scope = "Conv2d_1a_3x3" if last else f"Conv2d_0{'abc'[place]}_3x3"
                        y = self.conv(y, scope, out, 3, stride if last else 1)
                    outputs.append(y)
            with v1.variable_scope(f"Branch_{len(branches)}"):
                pooling = tf.nn.max_pool2d if pool == "max" else tf.nn.avg_pool2d
                y = pooling(x, 3, stride, "SAME")
                outputs.append(self.conv(y, "Conv2d_0b_1x1", after, 1) if after else y)
            return tf.concat(outputs, 3)

    def features(self, x):
        with v1.variable_scope("FirstStageFeatureExtractor/InceptionV2"):
            with v1.variable_scope("Conv2d_1a_7x7"):
                multiplier = min(int(self.depth(64) / 3), 8)
                depthwise = self.variable("depthwise_weights", [7, 7, 3, multiplier])
                pointwise = self.variable("pointwise_weights", [1, 1, 3 * multiplier, self.depth(64)])
                x = tf.nn.depthwise_conv2d(x, depthwise, [1, 2, 2, 1], "SAME")
                x = self.norm_relu(tf.nn.conv2d(x, pointwise, 1, "SAME"))
            x = tf.nn.max_pool2d(x, 3, 2, "SAME")
            x = self.conv(x, "Conv2d_2b_1x1", 64, 1)
            x = self.conv(x, "Conv2d_2c_3x3", 192, 3)
            x = tf.nn.max_pool2d(x, 3, 2, "SAME")
            for name in list(BLOCKS)[:7]:
                x = self.block(x, name)
        return x

    def biased(self, x, scope, shape):
        with v1.variable_scope(scope):
            weights, biases = self.variable("weights", shape), self.variable("biases", shape[-1:])
            product = tf.matmul(x, weights) if len(shape) == 2 else tf.nn.conv2d(x, weights, 1, "SAME")
            return tf.nn.bias_add(product, biases)

    def resize(self, image):
        """`[H, W, 3]` in f32, by the rule of the year."""
        least, most = (float(self.options[name]) for name in ("min_dimension", "max_dimension"))
        size = tf.cast(tf.shape(image)[:2], tf.float32)
        scaled = lambda scale: tf.cast(tf.round(size * scale), tf.int32)
        if self.year == 2018:
            large = scaled(least / tf.reduce_min(size))
            small = scaled(most / tf.reduce_max(size))
            new = tf.where(tf.cast(tf.reduce_max(large), tf.float32) > most, small, large)
        else:
            target = tf.where(size[0] < size[1], [least, most], [most, least])
            new = scaled(tf.reduce_min(target / size))
        return v1.image.resize_bilinear(image[None], new, align_corners=False)

    def window(self, images):
        height, width = (tf.cast(tf.shape(images)[axis], tf.float32) for axis in (1, 2))
        return tf.stack([0.0, 0.0, height, width])

    def anchors(self, height, width):
        ratios, scales = tf.meshgrid(self.options["aspect_ratios"], self.options["scales"], indexing="ij")
        roots = tf.sqrt(tf.reshape(ratios, [-1]))
        scales = tf.reshape(scales, [-1])
        half = 0.5 * tf.stack([scales / roots * 256.0, scales * roots * 256.0], 1)
        y, x = (tf.cast(tf.range(n), tf.float32) * 16.0 for n in (height, width))
        y, x = tf.meshgrid(y, x, indexing="ij")
        centres = tf.reshape(tf.stack([y, x], 2), [-1, 1, 2])
        return tf.reshape(tf.concat([centres - half, centres + half], 2), [-1, 4])

    def decode(self, deltas, anchors):
        """Boxes of deltas `[N, 4]`, all `[y1, x1, y2, x2]`."""
        size = anchors[:, 2:] - anchors[:, :2]
        centre = anchors[:, :2] + size / 2.0
        ty, tx, th, tw = tf.unstack(deltas, axis=1)
        centre = tf.stack([ty / 10.0, tx / 10.0], 1) * size + centre
        size = tf.exp(tf.stack([th / 5.0, tw / 5.0], 1)) * size
        return tf.concat([centre - size / 2.0, centre + size / 2.0], 1)

    def clip(self, boxes, window):
        with v1.name_scope("ClipToWindow"):
            low, high = window[:2], window[2:]
            corners = [tf.maximum(tf.minimum(part, high), low) for part in (boxes[:, :2], boxes[:, 2:])]
            boxes = tf.concat(corners, 1)
            sides = boxes[:, 2:] - boxes[:, :2]
            return boxes, tf.where(sides[:, 0] * sides[:, 1] > 0.0)[:, 0]

    def suppress(self, boxes, scores, window, threshold, iou, per_class, total):
        """Boxes `[N, K, 4]` and scores `[N, K]` of K classes: boxes, scores and classes that stay, best first."""
        found = []
        with v1.name_scope("BatchMultiClassNonMaxSuppression/MultiClassNonMaxSuppression"):
            for number in range(scores.shape[1]):
                kept = tf.where(scores[:, number] > threshold)[:, 0]
                b, s = tf.gather(boxes[:, number], kept), tf.gather(scores[:, number], kept)
                if self.year == 2018:
                    b, whole = self.clip(b, window)
                    b, s = tf.gather(b, whole), tf.gather(s, whole)
                most = tf.minimum(per_class, tf.shape(b)[0])
                best = tf.image.non_max_suppression(b, s, most, iou)
                b, s = tf.gather(b, best), tf.gather(s, best)
                found.append((b, s, tf.fill(tf.shape(s), number)))
            boxes, scores, classes = (tf.concat(parts, 0) for parts in zip(*found))
            scores, order = tf.nn.top_k(scores, tf.shape(scores)[0])
            boxes, classes = tf.gather(boxes, order), tf.gather(classes, order)
            if self.year != 2018:
                boxes, whole = self.clip(boxes, window)
                boxes, scores, classes = (tf.gather(part, whole) for part in (boxes, scores, classes))
            return boxes[:total], scores[:total], classes[:total]

    def image(self):
        """The placeholder of a picture, and the picture as the network takes it."""
        image = v1.placeholder(tf.uint8, [1, None, None, 3], name="image_tensor")
        with v1.name_scope("Preprocessor"):
            resized = self.resize(tf.cast(image[0], tf.float32))
            return image, (2.0 / 255.0) * resized - 1.0

    def first_stage(self, images):
        """Feature map; deltas, logits and anchors of all places, which may reach out of the image."""
        options = self.options
        features = self.features(images)
        shape = [3, 3, features.shape[-1], options["box_predictor_depth"]]
        rpn = tf.nn.relu6(self.biased(features, "Conv", shape))
        a = len(options["scales"]) * len(options["aspect_ratios"])
        with v1.variable_scope("FirstStageBoxPredictor"):
            shape = [1, 1, options["box_predictor_depth"]]
            deltas = self.biased(rpn, "BoxEncodingPredictor", shape + [4 * a])
            logits = self.biased(rpn, "ClassPredictor", shape + [2 * a])
        grid = tf.shape(features)
        return features, deltas, logits, self.anchors(grid[1], grid[2])

    def propose(self, deltas, logits, anchors, window):
        """Proposals and their scores."""
        most = self.options["max_proposals"]
        boxes = self.decode(tf.reshape(deltas, [-1, 4]), anchors)
        scores = tf.nn.softmax(tf.reshape(logits, [-1, 2]))[:, 1:]
        found = self.suppress(boxes[:, None], scores, window, 0.0, self.options["first_stage_iou"], most, most)
        return found[:2]

    def second_stage(self, features, proposals, window):
        """Pooled features; the vector, the deltas and the logits of each proposal."""
        normalized = proposals * (1.0 / tf.tile(window[2:], [2]))
        which = tf.zeros([tf.shape(proposals)[0]], tf.int32)
        crops = tf.image.crop_and_resize(features, normalized, which, [14, 14])
        x = pooled = tf.nn.max_pool2d(crops, 2, 2, "VALID")
        with v1.variable_scope("SecondStageFeatureExtractor/InceptionV2"):
            for name in list(BLOCKS)[7:]:
                x = self.block(x, name)
        x = tf.reduce_mean(x, [1, 2])
        with v1.variable_scope("SecondStageBoxPredictor"):
            width = int(x.shape[-1])
            deltas = self.biased(x, "BoxEncodingPredictor", [width, 4 * self.num_classes])
            logits = self.biased(x, "ClassPredictor", [width, self.num_classes + 1])
        return pooled, x, deltas, logits

    def build(self):
        """The tensors of every stage by name, boxes in pixels of the resized image as `[y1, x1, y2, x2]`."""
        options, out = self.options, {}
        image, images = self.image()
        out["images"] = images
        window = self.window(images)
        with v1.name_scope("FirstStage"):
            features, deltas, logits, anchors = self.first_stage(images)
            out |= {"features": features, "deltas": deltas, "logits": logits, "anchors": anchors}
            proposals, out["proposal_scores"] = self.propose(deltas, logits, self.clip(anchors, window)[0], window)
            out["proposals"] = proposals

        with v1.name_scope("SecondStage"):
            pooled, x, deltas, logits = self.second_stage(features, proposals, window)
            out |= {"pooled": pooled, "box_head": x, "class_logits": logits, "box_regression": deltas}
            each = tf.reshape(deltas, [-1, 4])
            boxes = self.decode(each, tf.repeat(proposals, self.num_classes, axis=0))
            boxes = tf.reshape(boxes, [-1, self.num_classes, 4])
            scores = tf.nn.softmax(logits)[:, 1:]
            found = self.suppress(
                boxes, scores, window, options["score_threshold"], options["second_stage_iou"], options["max_per_class"], options["max_total"]
            )
            boxes, scores, classes = found
            boxes = boxes / tf.tile(window[2:], [2])
            out["boxes"], out["scores"], out["classes"] = boxes, scores, classes + 1
        for key, name in (("boxes", "detection_boxes"), ("scores", "detection_scores"), ("classes", "detection_classes")):
            tf.cast(out[key], tf.float32, name=name) if key == "classes" else tf.identity(out[key], name=name)
        return image, out


PIPELINE = """# As the Object Detection API writes it beside its models.
model {{
  faster_rcnn {{
    num_classes: {num_classes}
    image_resizer {{
      keep_aspect_ratio_resizer {{
        min_dimension: {min_dimension}
        max_dimension: {max_dimension}
      }}
    }}
    feature_extractor {{
      type: "faster_rcnn_inception_v2"
      first_stage_features_stride: 16
    }}
    first_stage_anchor_generator {{
      grid_anchor_generator {{
        height_stride: 16
        width_stride: 16
{scales}
{aspect_ratios}
      }}
    }}
    first_stage_box_predictor_conv_hyperparams {{
      op: CONV
      regularizer {{ l2_regularizer {{ weight: 0.0 }} }}
      initializer {{ truncated_normal_initializer {{ stddev: 0.00999999977648 }} }}
    }}
    first_stage_box_predictor_depth: {box_predictor_depth}
    first_stage_nms_score_threshold: 0.0
    first_stage_nms_iou_threshold: {first_stage_iou}
    first_stage_max_proposals: {max_proposals}
    first_stage_localization_loss_weight: 2.0
    first_stage_objectness_loss_weight: 1.0
    initial_crop_size: 14
    maxpool_kernel_size: 2
    maxpool_stride: 2
    second_stage_box_predictor {{
      mask_rcnn_box_predictor {{
        fc_hyperparams {{ op: FC }}
        use_dropout: false
        dropout_keep_probability: 1.0
      }}
    }}
    second_stage_post_processing {{
      batch_non_max_suppression {{
        score_threshold: {score_threshold}
        iou_threshold: {second_stage_iou}
        max_detections_per_class: {max_per_class}
        max_total_detections: {max_total}
      }}
      score_converter: SOFTMAX
    }}
    second_stage_localization_loss_weight: 2.0
    second_stage_classification_loss_weight: 1.0
  }}
}}
train_config {{
  batch_size: 1
  optimizer {{ momentum_optimizer {{ momentum_optimizer_value: 0.9 }} use_moving_average: false }}
  fine_tune_checkpoint: "PATH_TO_BE_CONFIGURED/model.ckpt"
  freeze_variables: ".*FirstStageFeatureExtractor.*"
}}
"""


def pipeline(graph):
    lines = {
        name: "\n".join(f"        {name}: {value}" for value in graph.options[name]) for name in ("scales", "aspect_ratios")
    }
    return PIPELINE.format(**{**graph.options, **lines, "num_classes": graph.num_classes})
