import { channelAdapterSuite } from "./channel-adapter.ts";

channelAdapterSuite(process.env);
