import { deliverySuite } from "./delivery.ts";

deliverySuite();
