package lottor;

import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

import com.fasterxml.jackson.databind.ObjectMapper;
import org.springframework.boot.WebApplicationType;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.boot.builder.SpringApplicationBuilder;
import org.springframework.cloud.client.ServiceInstance;
import org.springframework.cloud.client.discovery.DiscoveryClient;

/** A Spring Cloud application that looks services up in its registry and prints what it sees of each. */
@SpringBootApplication
public class Viewer {
	public static void main(String[] args) throws Exception {
		try (var context = new SpringApplicationBuilder(Viewer.class).web(WebApplicationType.NONE).run(args)) {
			var client = context.getBean(DiscoveryClient.class);
			var seen = new LinkedHashMap<String, Object>();
			for (var service : context.getEnvironment().getRequiredProperty("services").split(",")) {
				seen.put(service, lookUp(client, service).stream().map(Viewer::show).toList());
			}
			System.out.println("SEEN " + new ObjectMapper().writeValueAsString(seen));
		}
	}

	/** Eureka's client has what its last fetch brought, and the server what its cache has. */
	private static List<ServiceInstance> lookUp(DiscoveryClient client, String service) throws InterruptedException {
		for (int turn = 0; turn < 100; turn++) {
			var instances = client.getInstances(service);
			if (!instances.isEmpty()) return instances;
			Thread.sleep(200);
		}
		return List.of();
	}

	private static Map<String, Object> show(ServiceInstance instance) {
		return Map.of(
				"instanceId", instance.getInstanceId(),
				"serviceId", instance.getServiceId(),
				"host", instance.getHost(),
				"port", instance.getPort(),
				"secure", instance.isSecure(),
				"uri", String.valueOf(instance.getUri()),
				"metadata", new TreeMap<>(instance.getMetadata()));
	}
}
