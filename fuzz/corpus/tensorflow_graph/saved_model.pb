ЯН
u
FFirstStageFeatureExtractor/InceptionV2/Conv2d_1a_7x7/depthwise_weightsConst*$
valueB-тнt╬
u
FFirstStageFeatureExtractor/InceptionV2/Conv2d_1a_7x7/pointwise_weightsConst*$
valueB-░Ф■?