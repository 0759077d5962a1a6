
u
FFirstStageFeatureExtractor/InceptionV2/Conv2d_1a_7x7/depthwise_weightsConst*$
valueB-‘Œtæ
u
FFirstStageFeatureExtractor/InceptionV2/Conv2d_1a_7x7/pointwise_weightsConst*$
valueB-êÊî?
g
DFirstStageFeatureExtractor/InceptionV2/Conv2d_1a_7x7/BatchNorm/gammaConst*
valueB-_Zï?